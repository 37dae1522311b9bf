"""Tiling put on a MODEL."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ....pgp_core.choices import PHASES
from ....pgp_core.errors import PGPError
from ....pgp_core.images.wrap import Wrap
from ....pgp_core.number import number
from ....pgp_core.tiling import STEP, check_blend
from ....pgp_core.tiling.options import MAX_PIXELS
from .. import places
from .calls import TiledCalls
from .frames import Runs

KEY = "pgp_diffsr_tiling"


def tile_model(
    model: ModelPatcher,
    tile: int = 0,
    overlap: int = 128,
    blend: str = "cosine",
    phase: str = PHASES[0],
    frames: int = 0,
    wrap: str = "none",
) -> ModelPatcher:
    """A copy of a MODEL that is called tile by tile; the MODEL itself is not touched.

    Args:
        tile: side in pixels; 0 for what :func:`pgp_core.tiling.automatic` chooses.
        overlap: what neighbours share, in pixels. Tiles of less than twice as much get half a tile.
        blend: one of :data:`pgp_core.choices.BLENDS`.
        phase: one of :data:`pgp_core.choices.PHASES`.
        frames: how many latents of a batch are sampled at a time; 0 for all.
        wrap: one of :data:`pgp_core.choices.WRAPS`: along which axes the canvas repeats, with the margins that
            :func:`pgp_core.images.canvas.canvas` makes.

    Raises:
        PGPError: if the tile is not larger than the overlap, or the MODEL is tiled already or samples no pictures.
    """
    for name, value in (("tile", tile), ("overlap", overlap), ("frames", frames)):
        number(value, f"PGP-DiffSR Tiling: {name} must be", 0, MAX_PIXELS, whole=True)
    check_blend(blend)
    if phase not in PHASES:
        raise PGPError(f"PGP-DiffSR Tiling: phase is {' or '.join(PHASES)}, not {phase!r}")
    previous = model.model_options.get("model_function_wrapper")
    if _is_tiled(previous):
        raise PGPError("PGP-DiffSR Tiling: this MODEL is tiled already; tile it once, from the MODEL before")
    latents = model.get_model_object("latent_format")
    if getattr(latents, "latent_dimensions", 2) != 2:
        raise PGPError("PGP-DiffSR Tiling: this MODEL samples video or sound, not pictures; it cannot be tiled here")
    if 0 < tile <= overlap:
        raise PGPError(
            f"PGP-DiffSR Tiling: tiles of {tile} pixels cannot overlap by {overlap}; give larger tiles or less overlap"
        )
    scale = int(getattr(latents, "spacial_downscale_ratio", 8))
    if 0 < tile < STEP * scale:
        raise PGPError(f"PGP-DiffSR Tiling: this MODEL's tiles have {STEP * scale} pixels at least, not {tile}")
    tiled = model.clone()
    calls = TiledCalls(
        tile // scale or None, -(-overlap // scale), blend, phase == "canvas", scale, previous, Wrap(wrap)
    )
    tiled.set_model_unet_function_wrapper(calls)
    # In front of the guidance's wrapper, which makes features for what is sampled at a time.
    others = tiled.wrappers.get(WrappersMP.OUTER_SAMPLE, {})
    tiled.wrappers[WrappersMP.OUTER_SAMPLE] = {KEY: [Runs(calls, frames)], **others}
    places.watch(tiled)
    return tiled


def _is_tiled(wrapper: Any) -> bool:
    while wrapper is not None:
        if isinstance(wrapper, TiledCalls):
            return True
        wrapper = getattr(wrapper, "previous", None)
    return False
