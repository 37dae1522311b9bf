"""Node: a MODEL that is sampled in tiles."""

from __future__ import annotations

from comfy_api.latest import io

from ..pgp_core.choices import BLENDS, PHASES
from . import comfy_backbone
from .inputs import wrap_input


class PGPDiffSRTiling(io.ComfyNode):
    """Lets a MODEL sample pictures that are too large for one call of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRTiling",
            display_name="PGP-DiffSR Tiling",
            category="PGP-DiffSR",
            description=(
                "Samples large pictures in overlapping tiles that are blended at every step, within one run of any "
                "sampler. Guidance, ControlNet and other conditioning are cut to each tile."
            ),
            search_aliases=["pgp", "tile", "tiled diffusion", "multidiffusion", "large picture", "out of memory", "4k"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to sample in tiles, before or behind Apply PGP-DiffSR. It is not changed; the "
                    "output is a patched copy.",
                ),
                io.Int.Input(
                    "tile",
                    default=0,
                    min=0,
                    max=16384,
                    step=32,
                    tooltip="Side of a tile in pixels. 0 is automatic: the whole picture if it fits in memory "
                    "and is not so large that tiles are faster, else the largest tiles that fit and are not slower.",
                ),
                io.Int.Input(
                    "overlap",
                    default=128,
                    min=0,
                    max=2048,
                    step=16,
                    tooltip="What neighbouring tiles share, in pixels. More hides seams better and takes longer. Tiles "
                    "of less than twice as much overlap by half.",
                ),
                io.Combo.Input(
                    "blend",
                    options=list(BLENDS),
                    default="cosine",
                    tooltip="How tiles fade into each other: over the middle half of the overlap, or over the whole "
                    "tile as in FaithDiff.",
                ),
                io.Combo.Input(
                    "phase",
                    options=list(PHASES),
                    default="tile",
                    advanced=True,
                    tooltip="Over what PEAM exchanges phases: each tile by itself, or the whole canvas as without "
                    "tiles; the beginning of the UNet is then run twice.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=4096,
                    advanced=True,
                    tooltip="How many pictures of a batch are sampled at a time; 0 is all of them. With few, memory "
                    "does not grow with the number of frames of a video.",
                ),
                wrap_input(
                    "The picture is a texture that repeats along these axes, from PGP-DiffSR Canvas with the "
                    "same wrap: at every step, what lies beyond one border is what the model makes of the other."
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The tiled model, for a sampler.")],
        )

    @classmethod
    def execute(
        cls, model: io.Model.Type, tile: int, overlap: int, blend: str, phase: str, frames: int, wrap: str = "none"
    ) -> io.NodeOutput:
        return io.NodeOutput(comfy_backbone.tile_model(model, tile, overlap, blend, phase, frames, wrap))
