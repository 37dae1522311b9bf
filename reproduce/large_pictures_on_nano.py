"""Seams, shifts, memory, time and plain pictures in tiles, on nano; makes tables of docs/reproduction.md.

    python reproduce/large_pictures_on_nano.py -o docs/reproduction/large-pictures.json

measures, each by itself with ``--only``:

seams
    Photographs restored in tiles against the same without tiles, by one step and by 20, with PEAM's phase exchanged in
    each tile and over the whole canvas. *Seam*: the mean square of the difference between two neighbouring pixels
    across a border, over the same 8 pixels to either side of it. Borders are the edges of tiles and the ends and the
    middle of the fade between them. The LQ recipe's JPEG blocks are 32 pixels of the canvas large and make that ratio
    1.6 at their own edges, tiled or not, so borders at multiples of 32 pixels count only in the ratio of both.
shift
    The same photographs and noise with the tiles moved by half a tile, against the same tiles with other noise where
    tiles overlap.
memory
    One step from a picture of a quarter's size to 1024 x 1024 and 4096 x 4096, each in a process of its own, on Linux:
    the largest resident memory above what the process had before; of one call of the UNet, of the denoiser with the
    blended latent (which for nano is as large as the canvas), and of all from LQ to result, beside the canvas with its
    frame in float32. Freed memory goes back to the system at once (glibc's ``MALLOC_MMAP_THRESHOLD_``). Seconds are of
    the processor.
plain
    Flat, saturated, checkered and all but empty pictures in float16 and bfloat16 against float32 without tiles, in
    levels of 255: rms (largest). *Clean* is no more than 1 (3).

What is done already with the same weights is not done again, so the command may be stopped and given again; with other
weights it begins anew. Processes with different sections may share the work. ``--folder`` takes another nano than the
bundled one, ``--tables`` prints what a file holds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pgp_core import nano, nano_pipeline, pixel_codec, schedule
from pgp_core.atomic import replacing
from pgp_core.canvas import BORDER, MULTIPLE, Size
from pgp_core.denoiser import Denoiser
from pgp_core.evaluation.cases import Case, cases, floats, picture_of
from pgp_core.evaluation.metrics import score
from pgp_core.evaluation.photographs import whole_photographs
from pgp_core.evaluation.summary import markdown_table
from pgp_core.nano_pipeline import NanoPipeline
from pgp_core.sampling import SampleOptions, draw_noise
from pgp_core.tiling import PHASES, Tile, Tiling, blended, grid
from pgp_core.upscale import upscale

SECTIONS = ("seams", "shift", "memory", "plain")
#: Pixels along a JPEG block of the LQ recipe, on the canvas.
BLOCK = 32
#: Pixels between a border and the lines that it is compared with.
BESIDE = 8

#: Seams: tiles and overlap in pixels. Starts are multiples of 16 pixels; with these many are none of 32.
TILE, OVERLAP = 272, 128
#: Shift: half a tile is 96 pixels, and no tile lies where one lay.
SHIFT_TILE, SHIFT_OVERLAP = 192, 64

#: Memory: result's side, tile (0: none).
SIZES = ((1024, 0), (1024, 512), (4096, 512))
MEMORY_OVERLAP = 128

#: Plain pictures: LQ's side and scale; tiles of their canvas, which has 32 pixels more on each side.
PLAIN_SIDE, PLAIN_SCALE, PLAIN_TILE, PLAIN_OVERLAP = 24, 2, 80, 32
PLAIN_STEPS = (1, 3)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Save = Callable[[], None]


# -- seams -----------------------------------------------------------------------------------------------------


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
    """Energy across borders over that across lines beside them; see the head of this file.

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


def seams(pipeline: NanoPipeline, case: Case, steps: int) -> dict[str, Any]:
    """One photograph, without tiles and with each way to exchange phases."""
    found: dict[str, Any] = {}
    whole = torch.empty(0)
    for way in ("whole", *PHASES):
        tiling = Tiling() if way == "whole" else Tiling(TILE, OVERLAP, phase=way)
        started = time.process_time()
        result = pipeline.restore(case.canvas, SampleOptions(cfg=1.0, steps=steps, tiling=tiling))
        row = {"seconds": round(time.process_time() - started, 2)}
        whole = result if way == "whole" else whole
        row |= _differences(result, whole)
        row |= {name: seam(result, TILE, OVERLAP, name == "seam_all") for name in ("seam", "seam_all")}
        found[way] = row | score(floats(picture_of(result)), floats(case.hq), ("psnr_y", "haarpsi"))
    return found


def _differences(a: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
    """In levels of 255."""
    levels = (a - b).abs() * 255
    return {"rms": float(levels.square().mean().sqrt()), "max": float(levels.max())}


# -- shift -----------------------------------------------------------------------------------------------------


def shifted(size: int, tile: int, overlap: int, shift: int) -> list[tuple[int, int]]:
    """Start and length of tiles along one axis that are moved by ``shift``, cut off at both ends."""
    stride = tile - overlap
    starts = [s for s in range(shift % stride - stride, size, stride) if s + tile > overlap and s + overlap < size]
    return [(max(0, s), min(size, s + tile) - max(0, s)) for s in starts]


@torch.inference_mode()
def sampled(pipeline: NanoPipeline, canvas: torch.Tensor, tiles: list[Tile], noise: torch.Tensor, steps: int) -> Any:
    """A canvas restored by Euler's method, in tiles and from noise that the caller has chosen."""
    features, z_l, a = pipeline.guidance.features(canvas), pixel_codec.encode(canvas), schedule.alphas_cumprod()
    times = [i * (schedule.TRAIN_STEPS // steps) + 1 for i in reversed(range(steps))]
    sigmas = [float(((1 - a[t]) / a[t]) ** 0.5) for t in times] + [0.0]
    x = noise * sigmas[0] * schedule.start_gain(sigmas[0], pipeline.latent_std)
    for i, timestep in enumerate(times):
        scaled, t = x / (1 + sigmas[i] ** 2) ** 0.5, torch.tensor([timestep])

        def predict(tile: Tile, scaled: torch.Tensor = scaled, t: torch.Tensor = t) -> torch.Tensor:
            local = tuple(tile.crop(f) for f in features)
            options = SampleOptions(cfg=1.0, steps=steps)
            model = Denoiser(pipeline.unet, pipeline.guidance, local, pipeline.positive, None, options)
            return model(tile.crop(scaled), t)

        out = blended(predict, tiles, SHIFT_OVERLAP // pixel_codec.FACTOR)
        clean = schedule.denoised(pipeline.prediction, out, scaled, t)
        x = clean + (x - clean) * (sigmas[i + 1] / sigmas[i])
    return pixel_codec.decode(z_l + x / nano.SCALE).clamp(0, 1)


def shift(pipeline: NanoPipeline, case: Case, steps: int) -> dict[str, Any]:
    """One photograph: tiles moved by half a tile; the same tiles with other noise where they overlap."""
    factor = pixel_codec.FACTOR
    height, width = (n // factor for n in case.canvas.shape[-2:])
    tile, overlap = SHIFT_TILE // factor, SHIFT_OVERLAP // factor
    tiles = grid(height, width, tile, overlap)
    down, across = (shifted(n, tile, overlap, tile // 2) for n in (height, width))
    moved = [Tile(y, x, h, w, (height, width)) for y, h in down for x, w in across]
    shape = (1, pixel_codec.CHANNELS, height, width)
    noise, other = draw_noise(shape, 0), draw_noise(shape, 1)
    count = torch.zeros(height, width)
    for t in tiles:
        t.crop(count).add_(1)
    shared = count > 1
    first = sampled(pipeline, case.canvas, tiles, noise, steps)
    by_shift = sampled(pipeline, case.canvas, moved, noise, steps)
    by_seed = sampled(pipeline, case.canvas, tiles, torch.where(shared, other, noise), steps)
    return {
        "shared": float(shared.float().mean()),
        "shift": _differences(by_shift, first),
        "seed": _differences(by_seed, first),
    }


# -- memory ----------------------------------------------------------------------------------------------------


class Resident:
    """Resident memory of this process, in bytes; Linux."""

    def __init__(self) -> None:
        self.highest = 0

    @staticmethod
    def now() -> int:
        """At present."""
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak(self) -> int:
        """The most since the last call."""
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        self.highest = max(self.highest, peak)
        Path("/proc/self/clear_refs").write_text("5")
        return peak


def measured(side: int, tile: int, folder: Path) -> dict[str, Any]:
    """Memory and time of one picture of ``side`` x ``side``, in this process."""
    pipeline, resident = NanoPipeline.load(folder=folder), Resident()
    lq = torch.rand(1, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    multiple = MULTIPLE["pgp-nano"]
    framed = -(-(side + 2 * BORDER["pgp-nano"]) // multiple) * multiple
    # What the first call of all sets up is no picture's.
    upscale(pipeline, lq[..., :32, :32], Size(scale=4.0), SampleOptions(cfg=1.0))
    calls: list[int] = []
    positions: list[int] = []
    denoising: list[int] = []
    entered = 0

    def enter(_: Any, args: tuple[Any, ...]) -> None:
        nonlocal entered
        resident.peak()
        entered = resident.now()
        positions.append(args[0].shape[-2] * args[0].shape[-1])

    def leave(*_: Any) -> None:
        calls.append(resident.peak() - entered)

    class Watched(Denoiser):
        def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            resident.peak()
            before, highest, resident.highest = resident.now(), resident.highest, 0
            out = super().__call__(x, t)
            resident.peak()
            denoising.append(resident.highest - before)
            resident.highest = max(highest, resident.highest)
            return out

    pipeline.unet.register_forward_pre_hook(enter)
    pipeline.unet.register_forward_hook(leave)
    nano_pipeline.Denoiser = Watched  # type: ignore[misc]
    before, resident.highest = resident.now(), 0
    Path("/proc/self/clear_refs").write_text("5")
    started = time.process_time()
    upscale(pipeline, lq, Size(scale=4.0), SampleOptions(cfg=1.0, tiling=Tiling(tile, MEMORY_OVERLAP)))
    seconds = time.process_time() - started
    resident.peak()
    return {
        "side": side,
        "tile": tile,
        "calls": len(calls),
        "canvas_bytes": framed * framed * 3 * 4,
        "call_bytes": max(calls),
        "denoiser_bytes": max(denoising),
        "process_bytes": resident.highest - before,
        "seconds": round(seconds, 2),
        "unet_pixels": sum(positions) * pixel_codec.FACTOR**2,
    }


def memory(side: int, tile: int, folder: Path) -> dict[str, Any]:
    """:func:`measured` in a process of its own."""
    threshold = {f"MALLOC_{name}_THRESHOLD_": str(2**17) for name in ("MMAP", "TRIM")}
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, __file__, "--measure", str(side), str(tile), "--folder", str(folder)]
    done = subprocess.run(command, env={**os.environ, **threshold, **threads}, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# -- plain pictures --------------------------------------------------------------------------------------------


def plain_pictures(side: int) -> dict[str, torch.Tensor]:
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
    import logging

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("pgp_core")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def plain(pipelines: Mapping[str, NanoPipeline], picture: torch.Tensor, steps: int) -> dict[str, Any]:
    """One picture in every dtype, whole and in tiles, against float32 whole."""
    found: dict[str, Any] = {}
    size, wanted = Size(scale=float(PLAIN_SCALE)), torch.empty(0)
    ideal = picture.repeat_interleave(PLAIN_SCALE, -1).repeat_interleave(PLAIN_SCALE, -2)
    for name, pipeline in pipelines.items():
        for way, tiling in (("whole", Tiling()), ("tiles", Tiling(PLAIN_TILE, PLAIN_OVERLAP))):
            with lines_said() as said:
                result = upscale(pipeline, picture, size, SampleOptions(cfg=1.0, steps=steps, tiling=tiling))
            if not found:
                wanted = result
            row: dict[str, Any] = {"finite": bool(result.isfinite().all()), "said": said}
            row["from float32"] = _differences(result, wanted)
            # What is flat shall stay it.
            row["from the picture"] = _differences(result, ideal)
            found[f"{name}, {way}"] = row
    return found


# -- all -------------------------------------------------------------------------------------------------------


def weights_of(folder: Path) -> str:
    """By which figures are known to be of the same model."""
    digest = hashlib.sha256()
    for file in (nano.UNET_FILE, nano.GUIDANCE_FILE, nano.S1_FILE, nano.CONTEXTS_FILE):
        digest.update((folder / file).read_bytes())
    return digest.hexdigest()[:16]


def read(file: Path) -> dict[str, Any]:
    """What a file holds; nothing where there is none."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def measure(args: argparse.Namespace, data: dict[str, Any], save: Save) -> None:
    """Whatever is wanted and not there."""
    pipelines: dict[tuple[int, str], NanoPipeline] = {}

    def pipeline(steps: int, dtype: str = "float32") -> NanoPipeline:
        key = (min(steps, 2), dtype)
        if key not in pipelines:
            pipelines[key] = NanoPipeline.load(one_step=steps == 1, folder=args.folder, dtype=DTYPES[dtype])
        return pipelines[key]

    def once(section: str, key: str, make: Callable[[], Any]) -> None:
        if key not in (here := data.setdefault(section, {})):
            here[key] = make()
            save()
            print(section, key, flush=True)  # noqa: T201

    if "seams" in args.only:
        for steps, longest in ((1, args.longest), (args.steps, args.longest_in_steps)):
            for case in cases(whole_photographs(longest, args.photograph)):
                key = f"{steps}, {longest} px, {case.name}"
                once("seams", key, lambda c=case, n=steps: seams(pipeline(n), c, n))
    if "shift" in args.only:
        for case in cases(whole_photographs(args.longest_in_steps, args.photograph)):
            key = f"{args.steps}, {args.longest_in_steps} px, {case.name}"
            once("shift", key, lambda c=case: shift(pipeline(args.steps), c, args.steps))
    if "plain" in args.only:
        for name, picture in plain_pictures(PLAIN_SIDE).items():
            for steps in PLAIN_STEPS:
                loaded = {dtype: pipeline(steps, dtype) for dtype in DTYPES}
                once("plain", f"{steps}, {name}", lambda p=picture, n=steps, loaded=loaded: plain(loaded, p, n))
    if "memory" in args.only:
        pipelines.clear()
        for side, tile in SIZES:
            once("memory", f"{side}, {tile}", lambda s=side, t=tile: memory(s, t, args.folder))


def tables(data: Mapping[str, Any]) -> str:
    """What there is, as Markdown."""
    makers = {"seams": _seam_table, "shift": _shift_table, "memory": _memory_table, "plain": _plain_table}
    return "\n".join(makers[name](data[name]) for name in SECTIONS if data.get(name))


def _seam_table(found: Mapping[str, Any]) -> str:
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


def _shift_table(found: Mapping[str, Any]) -> str:
    rows = []
    for key, v in found.items():
        share = v["shift"]["rms"] / v["seed"]["rms"]
        figures = [v[w][m] for w in ("shift", "seed") for m in ("rms", "max")]
        rows.append([key, *(f"{x:.2f}" for x in figures), f"{share:.2f}"])
    heads = ["steps, longest side, photograph", "shift: rms", "largest", "seed: rms", "largest", "shift / seed (rms)"]
    return markdown_table(heads, rows)


def _memory_table(found: Mapping[str, Any]) -> str:
    rows = []
    for v in found.values():
        sizes = [f"{v[k] / 2**20:.0f}" for k in ("call_bytes", "denoiser_bytes", "process_bytes")]
        share = v["unet_pixels"] / v["side"] ** 2
        row = [f"{v['side']}², {'tiles of ' + str(v['tile']) if v['tile'] else 'no tiles'}", str(v["calls"]), *sizes]
        row += [f"{v['process_bytes'] / v['canvas_bytes']:.1f}", f"{v['seconds']:.1f}", f"{share:.2f}"]
        rows.append([*row, f"{v['seconds'] / v['unet_pixels'] * 1e6:.2f}"])
    heads = ["result", "calls", "a call (MiB)", "denoiser (MiB)", "process (MiB)", "in canvases", "s"]
    return markdown_table([*heads, "UNet's pixels over the result's", "s per UNet megapixel"], rows)


def _plain_table(found: Mapping[str, Any]) -> str:
    rows, heads = [], ["steps, picture"]
    for key, ways in found.items():
        whole, *others = ways
        heads = ["steps, picture", f"{whole}: from the picture, rms", *others, "all finite", "run again in float32"]
        far = [ways[way]["from float32"] for way in others]
        row = [key, f"{ways[whole]['from the picture']['rms']:.2f}", *(f"{d['rms']:.2f} ({d['max']:.2f})" for d in far)]
        finite = "yes" if all(v["finite"] for v in ways.values()) else "NO"
        rows.append([*row, finite, ", ".join(way for way, v in ways.items() if v["said"]) or "none"])
    return markdown_table(heads, rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="all by default")
    parser.add_argument("--folder", type=Path, default=nano.FOLDER, help="nano's files")
    parser.add_argument("--longest", type=int, default=512, help="pixels that a side has at most, one step")
    parser.add_argument("--longest-in-steps", type=int, default=384, help="the same for many steps")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--photograph", action="append", help="all six by default")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tables", action="store_true", help="only print what there is")
    parser.add_argument("--measure", type=int, nargs=2, metavar=("SIDE", "TILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.measure:
        print(json.dumps(measured(*args.measure, args.folder)))  # noqa: T201
        return
    if args.output is None:
        parser.error("the following argument is required: -o")
    args.only = args.only or SECTIONS
    data = read(args.output)
    if args.tables:
        print(tables(data))  # noqa: T201
        return
    if data.get("weights") != (weights := weights_of(args.folder)):
        data = {"weights": weights}
    data["machine"] = {"torch": torch.__version__, "threads": torch.get_num_threads(), "system": platform.system()}
    args.output.parent.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        # Another process may have added other sections meanwhile.
        there = read(args.output)
        if there.get("weights") == weights:
            data.update({name: {**there.get(name, {}), **data.get(name, {})} for name in SECTIONS})
        with replacing(args.output) as temporary:
            temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    measure(args, data, save)
    print(tables(data))  # noqa: T201


if __name__ == "__main__":
    main()
