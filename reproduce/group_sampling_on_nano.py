"""What patch-adaptive group sampling saves and costs on nano; makes a table of docs/reproduction.md.

    python reproduce/group_sampling_on_nano.py -o docs/reproduction/groups.json

Whole photographs of scikit-image (sides up to 768 pixels) are degraded as for all evaluations and restored in tiles:
all tiles with all steps; in groups by difficulty; and, to compare with, all tiles with fewer steps. ``--folder`` takes
another nano than the bundled one, ``--tables`` prints what a file holds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pgp_core import schedule
from pgp_core.codecs import pixel as pixel_codec
from pgp_core.evaluation.cases import Case, cases, floats, picture_of
from pgp_core.evaluation.metrics import score
from pgp_core.evaluation.photographs import whole_photographs
from pgp_core.evaluation.summary import markdown_table
from pgp_core.files.atomic import replacing
from pgp_core.images.canvas import crop, frame
from pgp_core.restorers.nano import model as nano
from pgp_core.restorers.nano.family import NANO
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.sampling.denoiser import Denoiser
from pgp_core.sampling.euler import draw_noise
from pgp_core.sampling.options import SampleOptions
from pgp_core.tiling import Groups, Split, Tile, blended, difficulty, grid, start_sigma

STEPS = 20
METRICS = ("psnr_y", "haarpsi", "sharpness", "flat_noise")
#: Label to steps, and to shares of the timesteps at which easy and medium tiles begin.
WAYS: dict[str, tuple[int, tuple[float, float] | None]] = {
    "all tiles, 20 steps": (20, None),
    "groups, .2 and .4": (20, (0.2, 0.4)),
    "groups, .5 and .75": (20, (0.5, 0.75)),
    "all tiles, 15 steps": (15, None),
    "all tiles, 10 steps": (10, None),
}


def leading(steps: int) -> list[int]:
    """Timesteps as :func:`pgp_core.sampling.euler.euler` takes them."""
    return [i * (schedule.TRAIN_STEPS // steps) + 1 for i in reversed(range(steps))]


@torch.inference_mode()
def restore(
    pipeline: NanoRestorer, canvas: torch.Tensor, steps: int, side: int, overlap: int, groups: Groups | None
) -> tuple[torch.Tensor, int]:
    """A canvas restored in tiles by Euler, and how many tiles the model was called for."""
    features = pipeline.guidance.features(canvas)
    options = SampleOptions(steps=steps, cfg=1.0)
    z_l = pixel_codec.encode(canvas)
    tiles = grid(*z_l.shape[-2:], side, overlap)
    a = schedule.alphas_cumprod()
    times = leading(steps)
    sigmas = [float(((1 - a[t]) / a[t]) ** 0.5) for t in times] + [0.0]
    if groups is not None:
        groups.begin(sigmas)
    x = draw_noise(z_l.shape, options.seed) * sigmas[0] * schedule.start_gain(sigmas[0], pipeline.latent_std)
    called = 0
    for i, timestep in enumerate(times):
        sigma, t = sigmas[i], torch.tensor([timestep])

        def predict(tile: Tile, x: torch.Tensor = x, sigma: float = sigma, t: torch.Tensor = t) -> torch.Tensor:
            nonlocal called
            noised = tile.crop(x)
            coarse = None if groups is None else groups.skip(tile, sigma, noised)
            if coarse is not None:
                return coarse
            called += 1
            local = tuple(tile.crop(f) for f in features)
            model = Denoiser(pipeline.unet, pipeline.guidance, local, pipeline.positive, None, options)
            scaled = noised / (1 + sigma**2) ** 0.5
            return schedule.denoised(pipeline.prediction, model(scaled, t), scaled, t)

        clean = blended(predict, tiles, overlap)
        x = clean + (x - clean) * (sigmas[i + 1] / sigma)
    return pixel_codec.decode(z_l + x / nano.SCALE).clamp(0, 1), called


def measure(
    pipeline: NanoRestorer, case: Case, way: tuple[int, tuple[float, float] | None], side: int, overlap: int, split: Any
) -> dict[str, float]:
    """One photograph in one way."""
    steps, starts = way
    canvas = frame(case.canvas, NANO.frame.multiple, NANO.frame.border)
    started = time.process_time()
    groups = None
    if starts is not None:
        y0 = torch.zeros(1).expand(1, pixel_codec.CHANNELS, *(n // pixel_codec.FACTOR for n in canvas.shape[-2:]))
        easy, medium = (start_sigma(s) for s in starts)
        groups = Groups(difficulty(canvas), y0, split, (easy, medium), overlap=overlap)
    restored, called = restore(pipeline, canvas, steps, side, overlap, groups)
    seconds = time.process_time() - started
    picture = picture_of(crop(restored, *case.hq.size))
    return {"calls": called, "seconds": round(seconds, 2), **score(floats(picture), floats(case.hq), METRICS)}


def table(data: Mapping[str, Any]) -> str:
    """Means over the photographs, as Markdown; calls and processor seconds as shares of the first row's."""
    rows, first = [], next(iter(data["ways"].values()))
    for label, photographs in data["ways"].items():
        share = [
            sum(p[k] for p in photographs.values()) / sum(p[k] for p in first.values()) for k in ("calls", "seconds")
        ]
        means = [statistics.fmean(p[m] for p in photographs.values()) for m in METRICS]
        rows.append([label, *(f"{100 * s:.0f} %" for s in share), *(f"{m:.3f}" for m in means)])
    return markdown_table(["", "calls", "time", "PSNR-Y", "HaarPSI", "sharpness", "flat noise"], rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--folder", type=Path, default=nano.FOLDER, help="nano's files")
    parser.add_argument("--longest", type=int, default=768, help="pixels that a side has at most")
    parser.add_argument("--photograph", action="append", help="all six by default")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="all by default; the first is the measure")
    parser.add_argument("--tile", type=int, default=32, help="latent positions")
    parser.add_argument("--overlap", type=int, default=8, help="latent positions")
    parser.add_argument("--easy", type=float, default=0.4)
    parser.add_argument("--hard", type=float, default=0.3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tables", action="store_true", help="only print what there is")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.tables:
        print(table(json.loads(args.output.read_text())))  # noqa: T201
        return
    pictures = whole_photographs(args.longest, args.photograph)
    pipeline = NanoRestorer.load(one_step=False, folder=args.folder)
    ways: dict[str, dict[str, Any]] = {}
    split = Split(args.easy, args.hard)
    options = {k: getattr(args, k) for k in ("longest", "tile", "overlap", "easy", "hard")}
    data = {"options": options | {"steps": STEPS, "threads": torch.get_num_threads()}, "ways": ways}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for case in cases(pictures):
        for label in args.way or WAYS:
            figures = measure(pipeline, case, WAYS[label], args.tile, args.overlap, split)
            ways.setdefault(label, {})[case.name] = figures
            print(case.name, label, {k: round(v, 4) for k, v in figures.items()}, flush=True)  # noqa: T201
        with replacing(args.output) as temporary:
            temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(table(data))  # noqa: T201


if __name__ == "__main__":
    main()
