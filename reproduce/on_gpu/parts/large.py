"""Part 4: 4096 x 4096 in tiles: seconds, peak memory, and seams, by the measures of ``reproduce/large_pictures``.

Seams are nano's, for a seam in random weights says nothing; the same picture without tiles is what it is held against.
Where that does not fit, the rows of tiles stand alone.
"""

from __future__ import annotations

from typing import Any

import torch

from pgp_core.choices import PHASES
from pgp_core.tiling import Tiling

from ..results import FailedError, Results
from ..setting import Setting, picture
from . import families

#: Side, nano's tile, SDXL's tile, overlap; in pixels.
REAL, TINY = (4096, 512, 1024, 128), (192, 96, 96, 32)
#: Grey levels of 255 by which tiles may differ from the whole, root mean square; docs/reproduction.md measures less.
MOST_RMS = 2.0
#: How much of a picture's own energy across lines a seam may add.
MOST_SEAM = 1.1


def run(results: Results, setting: Setting) -> None:
    """All rows."""
    side, tile, sdxl_tile, overlap = TINY if setting.tiny else REAL
    device, half = torch.device(setting.device), torch.float32 if setting.tiny else torch.float16
    nano = families.nano(device, half, setting.tiny)
    canvas = _canvas(side)
    in_tiles: dict[str, torch.Tensor] = {}

    def tiles(phase: str) -> dict[str, Any]:
        found, in_tiles[phase] = _restored(nano, setting, canvas, tile, overlap, phase)
        return {**found, "seam": _seam(in_tiles[phase], tile, overlap)}

    def whole() -> dict[str, Any]:
        from large_pictures.levels import in_levels

        found, result = _restored(nano, setting, canvas, side, overlap)
        found["seam"] = own = _seam(result, tile, overlap)
        against = found["tiles against this"] = {
            phase: {**in_levels(other, result), "seam over this one's": _seam(other, tile, overlap) / own}
            for phase, other in in_tiles.items()
        }
        if any(v["rms"] > MOST_RMS or v["seam over this one's"] > MOST_SEAM for v in against.values()):
            raise FailedError("tiles show", found)
        return found

    for phase in PHASES:
        results.row(f"nano, {side}, tiles of {tile}, phase of the {phase}", lambda phase=phase: tiles(phase))
    results.row(f"nano, {side}, no tiles", whole)
    in_tiles.clear()

    def sdxl() -> dict[str, Any]:
        return _restored(families.sdxl_s1(device, half, setting.tiny), setting, canvas, sdxl_tile, overlap)[0]

    results.row(f"PGP-DiffSR (SDXL), one step, {side}, tiles of {sdxl_tile}", sdxl)


def _canvas(side: int) -> torch.Tensor:
    """A photograph that was made small and enlarged, where scikit-image is there; else a drawn picture."""
    from pgp_core.errors import PGPError
    from pgp_core.evaluation.cases import cases
    from pgp_core.evaluation.photographs import whole_photographs

    try:
        (photograph,) = whole_photographs(512, ["astronaut"]).values()
    except PGPError:
        return picture(side, side)
    (case,) = cases({"astronaut": photograph.resize((side, side))})
    return case.canvas


def _restored(
    made: families.Made, setting: Setting, canvas: torch.Tensor, tile: int, overlap: int, phase: str = "tile"
) -> tuple[dict[str, Any], torch.Tensor]:
    options = made.restorer.recipe.options(tiling=Tiling(tile, min(overlap, tile // 2), phase=phase))
    result: list[torch.Tensor] = []

    def call() -> None:
        result[:] = [made.restorer.restore(canvas, options)]

    peak = setting.peak(call)
    seconds = setting.timed(call)["median"]
    found = {"seconds": seconds, "peak_memory_bytes": peak, "size": list(result[0].shape[-2:])}
    if result[0].shape != canvas.shape or not bool(result[0].isfinite().all()):
        raise FailedError("the result is not a finite picture of the canvas's size", found)
    return found, result[0]


def _seam(picture: torch.Tensor, tile: int, overlap: int) -> float:
    from large_pictures import seams

    return seams.seam(picture, tile, overlap, everywhere=True)
