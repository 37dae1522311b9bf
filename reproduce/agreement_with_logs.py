"""How far our metrics are from published per-picture figures; makes docs/reproduction/agreement.json.

    git clone https://github.com/cswry/OSEDiff
    python reproduce/agreement_with_logs.py OSEDiff -o docs/reproduction/agreement.json

That repository holds RealSR's and DRealSR's test pictures, its authors' results, and their log of eight metrics for
each of them (pyiqa 0.1.10). Compared are those that need no networks, and LPIPS and DISTS where their backbones are on
this machine (``--backbone lpips=FILE``, or torch's cache). Exit status 1 if a picture's PSNR is off by more than 0.001
dB, SSIM by 0.00001, or NIQE by 0.05.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image

from pgp_core.evaluation.metrics import METRICS
from pgp_core.files.atomic import replacing

#: The log's names, ours, and how far off a picture may be.
COMPARED = {"PSNR": ("psnr_y", 1e-3), "SSIM": ("ssim", 1e-5), "NIQE": ("niqe", 0.05)}
#: The same for networks; nothing is promised of them.
NETWORKS = {"LPIPS": "lpips", "DISTS": "dists"}
#: Each set and its number of pictures.
SETS = {"RealSR": ("benchmark_realsr", 100), "DRealSR": ("benchmark_drealsr", 93)}
LINE = re.compile(r"results_osediff/(?P<file>\S+\.png) \| (?P<figures>[^|]+)")


def published(folder: Path) -> dict[str, dict[str, float]]:
    """File name to metric to figure, of the log that lies in a set's folder."""
    (log,) = (folder / "results_osediff" / "metrics").glob("*.log")
    found = {}
    for match in LINE.finditer(log.read_text(encoding="utf-8")):
        pairs = (figure.split(":") for figure in match["figures"].split(";"))
        found[match["file"]] = {name.strip(): float(value) for name, value in pairs}
    return found


def read(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.float64) / 255


def measured(folder: Path, file: str) -> dict[str, float]:
    """Ours that are no networks, by the log's names."""
    result, hq = read(folder / "results_osediff" / file), read(folder / "test_HR" / file)
    found = {}
    for theirs, (ours, _) in COMPARED.items():
        measure = METRICS[ours].measure
        assert measure is not None
        found[theirs] = measure(result, hq) if METRICS[ours].reference else measure(result)
    return found


def by_networks(folder: Path, files: list[str], backbones: dict[str, str]) -> tuple[dict[str, dict[str, float]], Any]:
    """The same for networks, and why some are missing."""
    import torch

    from pgp_core.evaluation.metrics import networks

    measures, missing = networks.load(
        list(NETWORKS.values()), "cuda" if torch.cuda.is_available() else "cpu", backbones=backbones
    )
    names = {theirs: ours for theirs, ours in NETWORKS.items() if ours in measures}
    found: dict[str, dict[str, float]] = {}
    for file in files if names else ():
        result, hq = read(folder / "results_osediff" / file), read(folder / "test_HR" / file)
        found[file] = {theirs: measures[ours](result, hq) for theirs, ours in names.items()}
    return found, missing


def compare(log: dict[str, dict[str, float]], ours: dict[str, dict[str, float]], theirs: str) -> dict[str, Any]:
    """How far one metric is off, over the pictures of a set."""
    off = {file: abs(ours[file][theirs] - figures[theirs]) for file, figures in log.items()}
    worst = max(off, key=lambda file: off[file])
    return {
        "largest_difference": float(f"{off[worst]:.3g}"),
        "on": worst,
        "mean_difference": float(f"{fmean(off.values()):.3g}"),
        "our_mean": round(fmean(ours[file][theirs] for file in log), 6),
        "their_mean": round(fmean(figures[theirs] for figures in log.values()), 6),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="of github.com/cswry/OSEDiff, checked out")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the summary")
    parser.add_argument("--backbone", action="append", default=[], metavar="NAME=FILE", help="for lpips or dists")
    args = parser.parse_args()

    backbones = dict(given.split("=", 1) for given in args.backbone)
    needed = ("pgp-diffsr", "numpy", "scipy", "pillow")
    summary: dict[str, Any] = {
        "results": "https://github.com/cswry/OSEDiff, preset/datasets, measured by its authors with pyiqa 0.1.10",
        "versions": {"python": sys.version.split()[0]} | {name: version(name) for name in needed},
        "allowed": {theirs: bound for theirs, (_, bound) in COMPARED.items()},
        "sets": {},
    }
    agrees = True
    for label, (name, expected) in SETS.items():
        folder = args.clone / "preset" / "datasets" / name
        log = published(folder)
        if len(log) != expected:
            raise SystemExit(f"{folder} has a log of {len(log)} pictures, not of {expected}")
        with ProcessPoolExecutor() as pool:
            ours = dict(zip(log, pool.map(measured, [folder] * len(log), log, chunksize=4), strict=True))
        more, missing = by_networks(folder, list(log), backbones)
        for file, figures in more.items():
            ours[file] |= figures
        metrics = {theirs: compare(log, ours, theirs) for theirs in next(iter(ours.values()))}
        summary["sets"][label] = {"pictures": len(log), "metrics": metrics, "not_compared": missing}
        for theirs, found in metrics.items():
            largest, bound = found["largest_difference"], summary["allowed"].get(theirs)
            agrees &= bound is None or largest <= bound
            of = "" if bound is None else f" of {bound:g} allowed"
            say(f"{label} {theirs}: at most {largest:g}{of}, on {found['on']}; {found['mean_difference']:g} on average")
        for line in missing.values():
            say(f"{label}: {line}")
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        for found in summary["sets"].values():
            # Why they are missing names this machine's folders.
            found["not_compared"] = sorted(found["not_compared"])
        with replacing(args.output) as temporary:
            temporary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return 0 if agrees else 1


def say(line: str) -> None:
    print(line)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
