"""Nodes: how hard a picture is where, and sampling that spends its steps by that."""

from __future__ import annotations

import logging
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..pgp_core.images.checked import checked_pictures
from ..pgp_core.tiling import Split, difficulty, heat
from . import comfy_backbone

log = logging.getLogger(__name__)


class PGPDiffSRDifficulty(io.ComfyNode):
    """A map of how much there is to restore."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRDifficulty",
            display_name="PGP-DiffSR Difficulty",
            category="PGP-DiffSR",
            description=(
                "Shows where a picture is hard to restore: fine, sharp detail is hard, what is flat or out of focus is "
                "easy. For PGP-DiffSR Adaptive, which spends fewer steps on easy places."
            ),
            search_aliases=["pgp", "difficulty", "detail", "heat map", "patchscaler", "adaptive"],
            inputs=[io.Image.Input("image", tooltip="The canvas: the low-quality picture at its final size.")],
            outputs=[
                io.Mask.Output(
                    display_name="difficulty",
                    tooltip="0 easy to 1 hard, one value for 8 x 8 pixels. Any mask of the same proportions does as "
                    "well, so it may be painted over.",
                ),
                io.Image.Output(
                    display_name="picture", tooltip="The map to look at: blue easy, yellow medium, red hard."
                ),
            ],
        )

    @classmethod
    def execute(cls, image: io.Image.Type) -> io.NodeOutput:
        canvas = _rgb(checked_pictures(image, "PGP-DiffSR Difficulty", log.warning))
        found = difficulty(canvas)
        picture = heat(canvas, found).movedim(1, -1)
        return io.NodeOutput(found[:, 0], picture, ui=ui.PreviewImage(picture, cls=cls))


def _rgb(image: torch.Tensor) -> torch.Tensor:
    """``(B, 3, H, W)`` of an IMAGE, which may be grey or have an alpha channel; a view."""
    return image[..., :3].movedim(-1, 1).expand(-1, 3, -1, -1)


class PGPDiffSRAdaptive(io.ComfyNode):
    """Sampling in tiles, of which easy ones take fewer steps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRAdaptive",
            display_name="PGP-DiffSR Adaptive",
            category="PGP-DiffSR",
            description=(
                "Saves time on large pictures: tiles that are easy begin late in the sampling and take fewer steps, "
                "hard ones take all, and the last steps are common. Put it right behind PGP-DiffSR Tiling."
            ),
            search_aliases=["pgp", "adaptive", "patchscaler", "group sampling", "tile", "fast", "skip"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A MODEL from PGP-DiffSR Tiling. It is not changed; the output is a patched copy.",
                ),
                io.Mask.Input(
                    "difficulty",
                    tooltip="From PGP-DiffSR Difficulty, or any mask of the picture's proportions: 0 easy, 1 hard. One "
                    "for the whole batch, or one per picture.",
                ),
                io.Latent.Input(
                    "samples",
                    tooltip="The canvas, encoded: what stands for a tile until it begins. For nano, whose latent is "
                    "the residual, the empty latent or the encoded canvas: only its size counts.",
                ),
                io.Float.Input(
                    "easy", default=0.4, min=0.0, max=1.0, step=0.05, tooltip="Share of the tiles that are easy."
                ),
                io.Float.Input(
                    "hard",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the tiles that are hard and take all steps; what is left is medium. Flat tiles "
                    "are never hard.",
                ),
                io.Float.Input(
                    "easy_start",
                    default=0.2,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the timesteps that easy tiles go through: 0.2 is the last fifth.",
                ),
                io.Float.Input(
                    "medium_start",
                    default=0.4,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the timesteps that medium tiles go through; not less than easy_start.",
                ),
                io.Int.Input(
                    "common",
                    default=2,
                    min=1,
                    max=1000,
                    tooltip="Last steps that all tiles take, whatever their start; they close seams between tiles of "
                    "different step counts.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The MODEL with groups, for a sampler.")],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        difficulty: torch.Tensor,
        samples: dict[str, Any],
        easy: float,
        hard: float,
        easy_start: float,
        medium_start: float,
        common: int,
    ) -> io.NodeOutput:
        starts = (easy_start, medium_start)
        return io.NodeOutput(
            comfy_backbone.adaptive_model(model, difficulty, samples, Split(easy, hard), starts, common)
        )
