"""Photographs restored in tiles against the same without tiles, and the energy across the tiles' borders.

*Seam*: the mean square of the difference between two neighbouring pixels across a border, over the same 8 pixels to
either side of it. Borders are the edges of tiles and the ends and the middle of the fade between them. The LQ recipe's
JPEG blocks are 32 pixels of the canvas large and make that ratio 1.6 at their own edges, tiled or not, so borders at
multiples of 32 pixels count only in the ratio of both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

from pgp_core.choices import PHASES
from pgp_core.codecs import pixel as pixel_codec
from pgp_core.evaluation.cases import Case, floats, picture_of
from pgp_core.evaluation.metrics import score
from pgp_core.evaluation.summary import markdown_table
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.sampling.options import SampleOptions
from pgp_core.tiling import Tiling, grid

from .levels import in_levels

#: Tiles and overlap in pixels. Starts are multiples of 16 pixels; with these many are none of 32.
TILE, OVERLAP = 272, 128
#: Pixels along a JPEG block of the LQ recipe, on the canvas.
BLOCK = 32
#: Pixels between a border and the lines that it is compared with.
BESIDE = 8


def borders(size: int, tile: int, overlap: int) -> list[int]:
    """Where seams could be along one axis, in pixels: tiles' edges, and the ends and the middle of their fades."""
    factor = pixel_codec.FACTOR
    cut = grid(size // factor, 4, tile // factor, overlap // factor)
    found: set[int] = set()
    for first, last in ((t.y * factor, (t.y + t.height) * factor) for t in cut):
        for i in (0, overlap // 4, overlap // 2, 3 * overlap // 4):
            found |= {first + i} if first else set()
            found |= {last - i} if last < size else set()
    return sorted(n for n in found if BESIDE < n < size - BESIDE)


def seam(picture: torch.Tensor, tile: int, overlap: int, everywhere: bool) -> float:
    """Energy across borders over that across lines beside them.

    Args:
        picture: ``(1, 3, H, W)``.
        everywhere: also borders on edges of JPEG blocks.
    """
    on, beside = [], []
    for turned in (picture, picture.mT):
        energy = (turned[..., 1:, :] - turned[..., :-1, :]).square().mean((0, 1, 3))
        for n in borders(turned.shape[-2], tile, overlap):
            if everywhere or n % BLOCK:
                # Between pixels n - 1 and n.
                on.append(float(energy[n - 1]))
                beside += [float(energy[n - 1 + d]) for d in (-BESIDE, BESIDE)]
    return statistics.fmean(on) / statistics.fmean(beside) if on else float("nan")


def measure(pipeline: NanoRestorer, case: Case, steps: int) -> dict[str, Any]:
    """One photograph, without tiles and with each way to exchange phases."""
    found: dict[str, Any] = {}
    whole = torch.empty(0)
    for way in ("whole", *PHASES):
        tiling = Tiling() if way == "whole" else Tiling(TILE, OVERLAP, phase=way)
        started = time.process_time()
        result = pipeline.restore(case.canvas, SampleOptions(cfg=1.0, steps=steps, tiling=tiling))
        row = {"seconds": round(time.process_time() - started, 2)}
        whole = result if way == "whole" else whole
        row |= in_levels(result, whole)
        row |= {name: seam(result, TILE, OVERLAP, name == "seam_all") for name in ("seam", "seam_all")}
        found[way] = row | score(floats(picture_of(result)), floats(case.hq), ("psnr_y", "haarpsi"))
    return found


def table(found: Mapping[str, Any]) -> str:
    """As Markdown."""
    rows = []
    for kind in dict.fromkeys(key.rpartition(", ")[0] for key in found):
        own = [v for k, v in found.items() if k.startswith(kind)]
        for way in ("whole", *PHASES):
            mean = {m: statistics.fmean(v[way][m] for v in own) for m in own[0][way]}
            quotients = [v[way]["seam"] / v["whole"]["seam"] for v in own]
            all_lines = statistics.fmean(v[way]["seam_all"] / v["whole"]["seam_all"] for v in own)
            row = [f"{kind}: {'no tiles' if way == 'whole' else 'phase of the ' + way}"]
            row += [f"{mean['seam']:.3f}", f"{statistics.fmean(quotients):.3f} ({max(quotients):.3f})"]
            row += [f"{all_lines:.3f}", f"{mean['rms']:.2f}", f"{max(v[way]['max'] for v in own):.1f}"]
            rows.append([*row, f"{mean['psnr_y']:.2f}", f"{mean['haarpsi']:.4f}", f"{mean['seconds']:.1f}"])
    heads = ["steps, longest side", "seam", "over that without tiles (largest)", "on all borders", "rms", "largest"]
    return markdown_table([*heads, "PSNR-Y", "HaarPSI", "s"], rows)
