"""Flat, saturated, checkered and all but empty pictures in float16 and bfloat16 against float32 without tiles.

In levels of 255: rms (largest). *Clean* is no more than 1 (3).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from pgp_core.evaluation.summary import markdown_table
from pgp_core.images.sizes import Size
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale
from pgp_core.sampling.options import SampleOptions
from pgp_core.tiling import Tiling

from .levels import in_levels

#: LQ's side and scale; tiles of their canvas, which has 32 pixels more on each side.
SIDE, SCALE, TILE, OVERLAP = 24, 2, 80, 32
STEPS = (1, 3)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pictures(side: int) -> dict[str, torch.Tensor]:
    """``(1, 3, side, side)`` each."""
    rows = torch.arange(side)
    board = ((rows[:, None] + rows[None]) % 2).float()
    pixel = torch.zeros(side, side)
    pixel[side // 2, side // 2] = 1
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    flat = {"grey": 0.5, "black": 0.0, "white": 1.0}
    return {
        **{name: torch.full((1, 3, side, side), value) for name, value in flat.items()},
        "saturated red": red.expand(1, 3, side, side).contiguous(),
        "checkerboard": board.expand(1, 3, side, side).contiguous(),
        "one bright pixel": pixel.expand(1, 3, side, side).contiguous(),
    }


@contextmanager
def lines_said() -> Iterator[list[str]]:
    """What the denoiser logs meanwhile."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("pgp_core")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def measure(pipelines: Mapping[str, NanoRestorer], picture: torch.Tensor, steps: int) -> dict[str, Any]:
    """One picture in every dtype, whole and in tiles, against float32 whole."""
    found: dict[str, Any] = {}
    size, wanted = Size(scale=float(SCALE)), torch.empty(0)
    ideal = picture.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2)
    for name, pipeline in pipelines.items():
        for way, tiling in (("whole", Tiling()), ("tiles", Tiling(TILE, OVERLAP))):
            with lines_said() as said:
                result = upscale(pipeline, picture, size, SampleOptions(cfg=1.0, steps=steps, tiling=tiling))
            if not found:
                wanted = result
            row: dict[str, Any] = {"finite": bool(result.isfinite().all()), "said": said}
            row["from float32"] = in_levels(result, wanted)
            # What is flat shall stay it.
            row["from the picture"] = in_levels(result, ideal)
            found[f"{name}, {way}"] = row
    return found


def table(found: Mapping[str, Any]) -> str:
    """As Markdown."""
    rows, heads = [], ["steps, picture"]
    for key, ways in found.items():
        whole, *others = ways
        heads = ["steps, picture", f"{whole}: from the picture, rms", *others, "all finite", "run again in float32"]
        far = [ways[way]["from float32"] for way in others]
        row = [key, f"{ways[whole]['from the picture']['rms']:.2f}", *(f"{d['rms']:.2f} ({d['max']:.2f})" for d in far)]
        finite = "yes" if all(v["finite"] for v in ways.values()) else "NO"
        rows.append([*row, finite, ", ".join(way for way, v in ways.items() if v["said"]) or "none"])
    return markdown_table(heads, rows)
