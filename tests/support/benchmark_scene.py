"""A small benchmark whose figures are known, for tests of what is made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pgp_core.evaluation.benchmark.results import Pair, Results, Row

SMALL, LARGE = (24, 16), (96, 64)
NAMES = ("apple", "boat", "<i>chair</i>", "דג", "egg", "flag", "gate", "hat")


def benchmark(folder: Path, names: tuple[str, ...] = NAMES) -> Results:
    """Pairs of small pictures; bicubic, a model that is 1 dB better, a folder that has no result of the first."""
    pairs = []
    rows = [
        Row("bicubic", "bicubic"),
        Row("model", "model", {"steps": 1, "seed": 7, "files": {"unet": {"sha256": "0123abcd"}}}),
        Row("folder", "folder", {"folder": "results"}),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        grid = np.random.default_rng(i).integers(40, 216, (4, 6, 3), dtype=np.uint8)
        coarse, files = Image.fromarray(grid), {}
        for what, size in (("lq", SMALL), ("hq", LARGE), ("bicubic", LARGE), ("model", LARGE), ("folder", LARGE)):
            files[what] = folder / f"{i}-{what}.png"
            coarse.resize(size, Image.Resampling.BICUBIC).save(files[what])
        pairs.append(Pair(name, files["lq"], files["hq"]))
        for row in rows:
            if i == 0 and row.name == "folder":
                row.failed[name] = "it is damaged"
                continue
            row.files[name] = files[row.name]
            gain = {"bicubic": 0.0, "model": 1.0, "folder": -0.5 if i % 2 else 0.5}[row.name]
            row.scores[name] = {"psnr_y": 30.0 - i + gain, "niqe": 5.0 + gain + i / 10, "musiq": None}
        rows[1].seconds[name] = 0.25 * (i + 1)
    return Results(
        "pairs",
        pairs,
        rows,
        ["psnr_y", "niqe", "musiq"],
        {"musiq": "pyiqa is not installed"},
        ["lonely.png has no HQ picture"],
        {"date": "2026-01-02", "machine": "a test"},
    )
