"""``pgp-diffsr upscale``: pictures in, larger pictures out."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PGPError, PictureError
from . import full_size
from .device import choose_device
from .numbers import finite, integer, seed
from .output import emit

if TYPE_CHECKING:
    from ..canvas import Size

#: :data:`pgp_core.color_fix.METHODS`, without waiting for PyTorch.
METHODS = ("wavelet", "adain", "none")
#: :data:`pgp_core.sampling.STARTS`.
STARTS = ("noise", "lq", "lr")
#: :data:`pgp_core.tiling.BLENDS` and :data:`pgp_core.tiling.PHASES`.
BLENDS, PHASES = ("cosine", "gaussian"), ("tile", "canvas")
#: :data:`pgp_core.wrap.WRAPS`.
WRAPS = ("none", "x", "y", "both")
#: :data:`pgp_core.images.FORMATS`.
FORMATS = {"png": ".png", "tiff": ".tif", "jpeg": ".jpg", "webp": ".webp"}


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("upscale", help="enlarge and restore pictures")
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="pictures, or folders of pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--scale", type=_in_range(finite, "scale"), metavar="F", help="result over input, 1 to 8 (4)")
    for side, what in (("width", "width"), ("height", "height"), ("longest", "longer side")):
        size.add_argument(
            f"--{side}", type=_in_range(integer, side), metavar="N", help=f"pixels of the result's {what}"
        )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--one-step", action="store_true", help="one UNet call (nano's default)")
    how.add_argument("--steps", type=integer, metavar="N", help="Euler steps with CFG, 20 as in the paper")
    parser.add_argument("--cfg", type=finite, metavar="F", help="classifier-free guidance (the model's own)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the noise, with --steps (0)")
    parser.add_argument(
        "--start", choices=STARTS, help="what --steps starts from (noise; full size: lr, without guidance lq)"
    )
    parser.add_argument(
        "--denoise",
        type=finite,
        default=0.5,
        metavar="F",
        help="noise added to an lq start (0.5)",
    )
    parser.add_argument("--strength", type=finite, default=1.0, metavar="F", help="of the guidance, 0 to 1 (1)")
    parser.add_argument("--color-fix", choices=METHODS, default="wavelet", help="whose colours to keep (wavelet)")
    parser.add_argument("--format", choices=FORMATS, default="png", help="of the results (png)")
    parser.add_argument("--quality", type=integer, default=95, metavar="N", help="of JPEG and WebP, 1 to 100 (95)")
    parser.add_argument("--lossless", action="store_true", help="WebP without loss")
    parser.add_argument("--overwrite", action="store_true", help="make results again that are there already")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (auto)")
    parser.add_argument("--json", action="store_true", help="one JSON object a picture on stdout")
    parser.add_argument(
        "--wrap",
        nargs="?",
        const="both",
        default="none",
        type=_wrap,
        metavar="x|y|both",
        help="the picture is a texture that repeats, and so does the result (both axes, if none is named)",
    )
    tiles = parser.add_argument_group("large pictures", "what does not fit in memory at once is restored in tiles")
    tiles.add_argument(
        "--tile",
        type=integer,
        default=0,
        metavar="N",
        help="side in pixels (0: by what fits and is fast)",
    )
    tiles.add_argument("--overlap", type=integer, default=128, metavar="N", help="of neighbours, in pixels (128)")
    tiles.add_argument("--blend", choices=BLENDS, default="cosine", help="of what tiles share (cosine)")
    tiles.add_argument("--phase", choices=PHASES, default="tile", help="over what PEAM exchanges the phase (tile)")
    full_size.add_to(parser)
    parser.set_defaults(run=run, wrong_usage=parser.error)


def _in_range(number: Callable[[str], Any], field: str) -> Callable[[str], Any]:
    """A type for argparse: a number that :class:`pgp_core.canvas.Size` takes, else wrong usage."""

    def parse(text: str) -> Any:
        from ..canvas import Size

        value = number(text)
        try:
            Size(**{field: value})
        except PGPError as e:
            raise argparse.ArgumentTypeError(str(e)) from None
        return value

    parse.__name__ = number.__name__
    return parse


def _wrap(text: str) -> str:
    """A type for argparse: what follows ``--wrap``, which may be a picture by mistake."""
    if text not in WRAPS:
        listed = ", ".join(WRAPS[1:])
        raise argparse.ArgumentTypeError(
            f"{listed} or {WRAPS[0]} is possible, not {text}; alone, for both, it goes behind the pictures"
        )
    return text


def run(args: argparse.Namespace) -> int:
    """Upscale all inputs; a picture that fails is named and the rest goes on."""
    from ..images import find_pictures

    if wrong := full_size.wrong_usage(args):
        args.wrong_usage(wrong)
    if args.steps is None and full_size.chosen(args) and not args.one_step:
        args.steps = 20
    size = _size(args)
    pictures = find_pictures(args.inputs)
    outputs = _outputs(pictures, args.output, FORMATS[args.format])
    # Options are checked, and the folder is made, before anything slow begins.
    options = _options(args)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise PictureError(f"the folder {args.output} cannot be made: {e}") from None
    todo = [(s, t) for s, t in zip(pictures, outputs, strict=True) if args.overwrite or not t.exists()]
    if args.json:
        for source, target in zip(pictures, outputs, strict=True):
            if (source, target) not in todo:
                emit({"input": str(source), "output": str(target), "skipped": True})
    failed = _all(todo, args, size, options, len(pictures) > 1) if todo else 0
    if len(pictures) > 1 or not todo:
        skipped = len(pictures) - len(todo)
        summary = f"{len(todo) - failed} of {len(pictures)} pictures done"
        if skipped:
            summary += f", {skipped} skipped that were there already (--overwrite makes them again)"
        if failed:
            summary += f", {failed} failed"
        print(f"pgp-diffsr: {summary}", file=sys.stderr)  # noqa: T201
    return 1 if failed else 0


def _all(
    todo: list[tuple[Path, Path]], args: argparse.Namespace, size: Size, options: dict[str, Any], many: bool
) -> int:
    """Upscale all of them; how many failed. The failure of a lone input is raised."""
    pipeline = _load(args)
    if args.steps is None and args.cfg is None:
        options["cfg"] = 1.0
    failed = 0
    for source, target in todo:
        try:
            _upscale(pipeline, source, target, args, size, options)
        except PGPError as e:
            if not many:
                raise
            failed += 1
            print(f"pgp-diffsr: error: {e}", file=sys.stderr)  # noqa: T201
    return failed


def _load(args: argparse.Namespace) -> Any:
    """The pipeline that the options ask for."""
    device = choose_device(args.device)
    if full_size.chosen(args):
        return full_size.load(args, device)
    from ..nano_pipeline import NanoPipeline

    return NanoPipeline.load(one_step=args.steps is None, device=device)


def _upscale(
    pipeline: Any, source: Path, target: Path, args: argparse.Namespace, size: Size, options: dict[str, Any]
) -> None:
    from tqdm import tqdm

    from ..images import check_size, open_picture, save_picture
    from ..sampling import SampleOptions
    from ..upscale import upscale

    started = time.perf_counter()
    picture = open_picture(source)
    for note in picture.notes:
        print(f"{source}: {note}", file=sys.stderr)  # noqa: T201
    # Not after minutes.
    check_size(target, *size.of(picture.pixels.shape[1], picture.pixels.shape[0]))
    steps = args.steps or 1
    start = args.start or pipeline.start
    denoise = args.denoise if start == "lq" else 1.0
    chosen = SampleOptions(**{"cfg": pipeline.cfg, "start": start, "denoise": denoise, **options})
    with tqdm(total=steps, desc=source.name, unit="step", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        result = upscale(pipeline, picture.channels(), size, chosen, args.color_fix, progress, args.wrap)
    height, width = result.shape[-2:]
    for note in save_picture(picture.enlarged(result[0]), target, args.quality, args.lossless):
        print(f"{target}: {note}", file=sys.stderr)  # noqa: T201
    seconds = time.perf_counter() - started
    row = {
        "input": str(source),
        "output": str(target),
        "width": width,
        "height": height,
        "seconds": round(seconds, 3),
        "peak_memory_bytes": _peak_memory(pipeline.device),
        "seed": args.seed,
        "steps": steps,
        "model": pipeline.name,
    }
    if args.json:
        emit(row)
    print(f"{target}  {width} x {height}, {seconds:.1f} s", file=sys.stderr)  # noqa: T201


def _outputs(pictures: list[Path], folder: Path, suffix: str) -> list[Path]:
    """``folder/<stem><suffix>`` of each.

    Raises:
        PictureError: if two inputs would write one output, or one would overwrite its input.
    """
    outputs: dict[Path, Path] = {}
    for source in pictures:
        target = folder / f"{source.stem}{suffix}"
        if target in outputs:
            raise PictureError(f"{outputs[target]} and {source} would both be written to {target}: rename one")
        if target.resolve() == source.resolve():
            raise PictureError(f"{source} would be overwritten by its own result: choose another output folder")
        outputs[target] = source
    return list(outputs)


def _size(args: argparse.Namespace) -> Size:
    from ..canvas import Size

    given = {k: getattr(args, k) for k in ("scale", "width", "height", "longest")}
    return Size(**given) if any(v is not None for v in given.values()) else Size(scale=4.0)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    from ..sampling import SampleOptions
    from ..tiling import Tiling

    if not 1 <= args.quality <= 100:
        raise PGPError(f"the quality is 1 to 100, not {args.quality}")
    tiling = Tiling(args.tile, args.overlap, args.blend, args.phase)
    options: dict[str, Any] = {"seed": args.seed, "strength": args.strength, "tiling": tiling}
    if args.cfg is not None:
        options["cfg"] = args.cfg
    if args.steps is not None:
        options["steps"] = args.steps
    SampleOptions(**options, denoise=args.denoise)
    return options


def _peak_memory(device: Any) -> int:
    """Peak bytes so far: of PyTorch on a CUDA card, else of the process (0 where the system does not say)."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
