"""Node: the LQ canvas, a picture at its final size."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io

from ..pgp_core.images import canvas, sizes
from ..pgp_core.images.checked import checked_pictures
from ..pgp_core.images.wrap import Wrap
from ..pgp_core.restorers.finding import CANVASES
from .inputs import scale_input, wrap_input

log = logging.getLogger(__name__)


class PGPDiffSRCanvas(io.ComfyNode):
    """Enlarges a picture to the exact size of the result, with the frame around it that the model needs."""

    #: Widget value to field of :class:`pgp_core.images.sizes.Size`.
    BY = {"scale": "scale", "width": "width", "height": "height", "longest side": "longest"}  # noqa: RUF012

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRCanvas",
            display_name="PGP-DiffSR Canvas",
            category="PGP-DiffSR",
            description=(
                "Enlarges the low-quality picture to the exact size of the result (Lanczos) and puts a mirrored frame "
                "around it, as the model needs. PGP-DiffSR Colour Fix cuts the frame off again."
            ),
            search_aliases=["pgp", "upscale", "resize", "pad", "super resolution"],
            inputs=[
                io.Image.Input("image", tooltip="The low-quality picture, or a batch. An alpha channel is kept."),
                io.Combo.Input(
                    "by",
                    options=list(cls.BY),
                    default="scale",
                    tooltip="What the size of the result is given by; the other side follows in proportion.",
                ),
                scale_input("Result over input; read with by = scale. Halves of a pixel are rounded up."),
                io.Int.Input(
                    "pixels",
                    default=2048,
                    min=1,
                    max=sizes.MAX_SIDE,
                    tooltip="Pixels of the side named by 'by', exactly; not read with by = scale.",
                ),
                io.Combo.Input(
                    "model",
                    options=list(CANVASES),
                    tooltip="Which model the canvas is for: nano needs multiples of 16 pixels and a "
                    "frame of 32, SDXL multiples of 32.",
                ),
                wrap_input(
                    "The picture is a texture that repeats along these axes: the frame is then taken from the "
                    "opposite side. Set it in PGP-DiffSR Tiling and Colour Fix too."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="canvas", tooltip="For VAE Encode, Apply PGP-DiffSR and the colour fix."),
                io.Int.Output(display_name="width", tooltip="Of the result without the frame, for the colour fix."),
                io.Int.Output(display_name="height", tooltip="Of the result without the frame, for the colour fix."),
                io.Image.Output(display_name="enlarged", tooltip="The canvas without the frame, to compare with."),
            ],
        )

    @classmethod
    def execute(
        cls, image: io.Image.Type, by: str, scale: float, pixels: int, model: str, wrap: str = "none"
    ) -> io.NodeOutput:
        image = checked_pictures(image, "PGP-DiffSR Canvas", log.warning)
        if image.shape[-1] == 1:
            # Core's VAEs take RGB only.
            image = image.expand(-1, -1, -1, 3)
        wanted: dict[str, Any] = {"scale": scale} if by == "scale" else {cls.BY[by]: pixels}
        size = sizes.Size(**wanted)
        out, width, height = canvas.canvas(image.movedim(-1, 1), size, CANVASES[model], Wrap(wrap))
        enlarged = canvas.uncanvas(out, width, height, Wrap(wrap))
        return io.NodeOutput(out.movedim(1, -1), width, height, enlarged.movedim(1, -1))
