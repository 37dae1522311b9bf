"""What the dial of fidelity does, by its width: makes the table of docs/pictures.md.

    git clone --depth 1 https://github.com/cswry/OSEDiff
    python reproduce/fidelity_dial.py OSEDiff -o docs/reproduction/fidelity-dial.json

takes RealSR's 100 pairs and OSEDiff's published results of them (which have had AdaIN already) out of the clone, turns
the dial on them, and measures each position in processes beside each other. ``nano`` is the bundled model in one step,
with its wavelet colour fix, which then goes through the same. What is in the file already is not measured again;
``--table`` prints what it holds.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from pgp_core.evaluation.benchmark.statistics import Bootstrap
from pgp_core.evaluation.metrics import score
from pgp_core.files.atomic import replacing
from pgp_core.images.faithfulness import faithfulness
from pgp_core.images.fidelity import follow
from pgp_core.images.resampling import enlarge
from pgp_core.images.sizes import Size
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale

DATA = Path("preset", "datasets", "benchmark_realsr")
#: Pixels of the result, which is four times the input; 0 is off.
SIGMAS = (0, 32, 16, 12, 8, 6, 5, 4, 3, 2, 1)
#: Rows that the dial is not turned on: how faithful the real photograph is, and the input itself.
ALONE = ("hq", "enlarged")
AGAINST_HQ = ("psnr_y", "niqe", "gmsd", "haarpsi", "sharpness")
COLUMNS = {
    "psnr_y": ("PSNR-Y", 2),
    "niqe": ("NIQE", 2),
    "gmsd": ("GMSD", 3),
    "haarpsi": ("HaarPSI", 3),
    "sharpness": ("sharpness", 2),
    "faithfulness_db": ("faithful, dB", 1),
    "faithfulness_delta_e": ("faithful, ΔE", 2),
}
#: In the order of the columns.
Scores = list[float]


def read(path: Path) -> torch.Tensor:
    """``(1, 3, H, W)`` in [0, 1]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0)[None].float() / 255


def levels(picture: torch.Tensor) -> torch.Tensor:
    """As 8 bits hold it."""
    return (picture * 255).round() / 255


def array(picture: torch.Tensor) -> npt.NDArray[np.float64]:
    """For the metrics."""
    return picture[0].movedim(0, -1).double().numpy()


def measured(folder: Path, name: str, row: str, positions: tuple[float, ...]) -> dict[str, Scores]:
    """One picture at several positions of the dial."""
    torch.set_num_threads(1)
    lq, hq = read(folder / "test_LR" / name), read(folder / "test_HR" / name)
    height, width = hq.shape[-2:]
    canvas = enlarge(lq, width, height)
    if row == "nano":
        result = levels(upscale(nano(), lq, Size(width=width)))
    elif row in ALONE:
        result = hq if row == "hq" else levels(canvas)
    else:
        result = read(folder / "results_osediff" / name)
    found = {}
    for sigma in positions:
        dialled = levels(follow(result, canvas, sigma))
        (faithful,) = faithfulness(dialled, lq)
        own = {"faithfulness_db": faithful.db, "faithfulness_delta_e": faithful.delta_e}
        scores = {**score(array(dialled), array(hq), AGAINST_HQ), **own}
        found[str(sigma)] = [round(scores[column], 4) for column in COLUMNS]
    return found


_NANO: list[NanoRestorer] = []


def nano() -> NanoRestorer:
    """Once a process."""
    if not _NANO:
        _NANO.append(NanoRestorer.load(one_step=True))
    return _NANO[0]


def measure(folder: Path, names: list[str], row: str, data: dict[str, Any], processes: int) -> Iterator[None]:
    """Measure what is not there; after each picture the data may be written."""
    here = data.setdefault(row, {})
    missing = {}
    for name in names:
        positions = tuple(s for s in SIGMAS if str(s) not in here.get(name, {}) and (s == 0 or row not in ALONE))
        if positions:
            missing[name] = positions
    with ProcessPoolExecutor(processes) as pool:
        jobs = {name: pool.submit(measured, folder, name, row, positions) for name, positions in missing.items()}
        for name, job in tqdm(jobs.items(), desc=row, unit="picture"):
            here.setdefault(name, {}).update(job.result())
            yield


def as_text(data: dict[str, Any]) -> str:
    """JSON with a line per picture."""
    rows = []
    for row, pictures in data.items():
        lines = [f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in pictures.items()]
        rows.append(f" {json.dumps(row)}: {{\n" + ",\n".join(lines) + "\n }")
    columns = json.dumps(list(COLUMNS))
    return f'{{"columns": {columns},\n "rows": {{\n' + ",\n".join(rows) + "\n}}\n"


def table(data: dict[str, Any]) -> str:
    """Means, and what each position changes with its interval, in Markdown."""
    heads = ["", "pixels", *(head for head, _ in COLUMNS.values()), "PSNR-Y gained", "NIQE changed"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    bootstrap = Bootstrap()
    for row, pictures in data.items():
        for position in map(str, SIGMAS):
            there = [p for p in pictures.values() if position in p]
            if not there:
                continue
            columns = zip(COLUMNS.values(), zip(*(p[position] for p in there), strict=True), strict=True)
            means = [f"{np.mean(values):.{n}f}" for (_, n), values in columns]
            changes = []
            for column in map(list(COLUMNS).index, ("psnr_y", "niqe")):
                difference = bootstrap.estimate([p[position][column] - p["0"][column] for p in there])
                low, high = difference.interval or (difference.mean,) * 2
                changes.append("" if position == "0" else f"{difference.mean:+.2f} ({low:+.2f} to {high:+.2f})")
            said = "off" if position == "0" else position
            lines.append("| " + " | ".join([f"{row}, {len(there)}", said, *means, *changes]) + " |")
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, nargs="?", help="of github.com/cswry/OSEDiff")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--rows", nargs="+", default=["hq", "enlarged", "osediff", "nano"], metavar="ROW")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every nth picture only")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="print what the file holds")
    args = parser.parse_args()
    data: dict[str, Any] = {}
    if args.output.exists():
        data = json.loads(args.output.read_text(encoding="utf-8"))["rows"]
    if args.clone is not None:
        folder = args.clone / DATA
        names = sorted(p.name for p in (folder / "test_HR").glob("*.png"))[:: args.every]
        if not names:
            parser.error(f"{folder} holds no pairs: it takes a clone of github.com/cswry/OSEDiff")
        for row in args.rows:
            for _ in measure(folder, names, row, data, args.processes):
                with replacing(args.output) as file:
                    file.write_text(as_text(data), encoding="utf-8")
    if args.table:
        print(table(data))  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
