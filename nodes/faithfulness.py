"""Node: how far a result has left its input, in numbers and as a map."""

from __future__ import annotations

import logging

import torch
from comfy_api.latest import io, ui

from ..pgp_core.errors import PGPError
from ..pgp_core.images.checked import checked_pictures
from ..pgp_core.images.departures import departures
from ..pgp_core.images.faithfulness import describe, faithfulness

log = logging.getLogger(__name__)


class PGPDiffSRFaithfulness(io.ComfyNode):
    """Compares a result with the picture that it was made of."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRFaithfulness",
            display_name="PGP-DiffSR Faithfulness",
            category="PGP-DiffSR",
            description=(
                "Says how far a result has left its input, and shows where: the result, brought down to the input's "
                "size, against the input. It works on any two pictures, whatever upscaler made the one of the other."
            ),
            search_aliases=["pgp", "faithful", "fidelity", "psnr", "compare", "difference", "delta e", "hallucination"],
            inputs=[
                io.Image.Input("image", tooltip="The result, or a batch of them."),
                io.Image.Input(
                    "reference",
                    tooltip="The low-quality picture that it was made of, as it was loaded; one, or one per result. "
                    "Where it has alpha, only what is visible counts.",
                ),
            ],
            is_output_node=True,
            outputs=[
                io.String.Output(display_name="text", tooltip="What was found, in a line, and a line per picture."),
                io.Float.Output(
                    display_name="decibels",
                    tooltip="PSNR in dB, the mean of the batch; 100 where nothing differs. An enlarged picture has "
                    "about 50, HQ photographs of real pairs 28, and what is at 15 has been invented.",
                ),
                io.Image.Output(
                    display_name="map",
                    tooltip="Where it departs, and how much: from violet, just visible, to yellow, over the result in "
                    "grey.",
                ),
                io.Float.Output(
                    display_name="delta_e", tooltip="Mean difference of colour (CIEDE2000), the mean of the batch."
                ),
            ],
        )

    @classmethod
    def execute(cls, image: io.Image.Type, reference: io.Image.Type) -> io.NodeOutput:
        image = checked_pictures(image, "PGP-DiffSR Faithfulness", log.warning)
        reference = checked_pictures(reference, "PGP-DiffSR Faithfulness's reference", log.warning)
        pictures = image.movedim(-1, 1)
        numbers, maps = [], []
        try:
            for picture, found in zip(pictures, faithfulness(pictures, reference.movedim(-1, 1)), strict=True):
                maps.append(departures(picture, found).movedim(0, -1))
                numbers.append((found.db, found.delta_e))
        except PGPError as e:
            raise PGPError(f"PGP-DiffSR Faithfulness: {e}") from e
        text = describe(numbers)
        decibels, delta_e = (sum(column) / len(numbers) for column in zip(*numbers, strict=True))
        return io.NodeOutput(text, decibels, torch.stack(maps), delta_e, ui=ui.PreviewText(text))
