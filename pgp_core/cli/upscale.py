"""``pgp-diffsr upscale``: pictures in, larger pictures out."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..choices import WRAPS
from ..errors import PGPError, PictureError
from ..visible import visible
from . import model_options, sampling_options
from .batch import Batch, failure, paths
from .destination import FORMATS, check_room, destination, make_folder
from .device import choose_device
from .noise import attributed
from .numbers import finite, integer
from .output import emit, say

if TYPE_CHECKING:
    from ..batch.jobs import Job, Jobs
    from ..images.finding import FoundPictures
    from ..images.sizes import Size
    from ..restorers.family import Found
    from ..restorers.recipe import Recipe
    from ..restorers.restorer import Restorer
    from ..sampling.options import SampleOptions


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("upscale", help="enlarge and restore pictures")
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="pictures, or folders of pictures")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="folder for the results; with one picture, also a file"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--scale", type=_in_range(finite, "scale"), metavar="F", help="result over input, 1 to 8 (4)")
    for side, what in (("width", "width"), ("height", "height"), ("longest", "longer side")):
        size.add_argument(
            f"--{side}", type=_in_range(integer, side), metavar="N", help=f"pixels of the result's {what}"
        )
    sampling_options.add_to(parser)
    parser.add_argument("--format", choices=FORMATS, help="of the results (png, or as OUT ends)")
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
    sampling_options.add_tiles(parser)
    model_options.add_to(parser)
    parser.set_defaults(run=run, wrong_usage=parser.error)


def _in_range(number: Callable[[str], Any], field: str) -> Callable[[str], Any]:
    """A type for argparse: a number that :class:`pgp_core.images.sizes.Size` takes, else wrong usage."""

    def parse(text: str) -> Any:
        from ..images.sizes import Size

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
    from ..images.finding import look_for

    once = sampling_options.one_step(args)
    if wrong := model_options.wrong_usage(args, once):
        args.wrong_usage(wrong)
    size = _size(args)
    _check_numbers(args)
    found = look_for(args.inputs)
    target, wrong = destination(args.output, found.lone, args.format)
    if wrong:
        args.wrong_usage(wrong)
    if not found.pictures and len(found.failed) == 1:
        ((source, error),) = found.failed
        if args.json:
            emit(failure(source, error))
        raise error
    jobs = _jobs(args, found, target)
    batch = Batch(found, jobs, args.json, args.debug, args.overwrite)
    if not jobs.todo:
        return batch.run(lambda: lambda _: {})
    with model_options.usage(args):
        model = model_options.find(model_options.given(args, once))
    return batch.run(lambda: _worker(model, args, size))


def _jobs(args: argparse.Namespace, found: FoundPictures, target: Path | None) -> Jobs:
    """What is to be done; the folder is made, and tried, before anything slow begins."""
    from ..batch.jobs import Jobs, one_job, plan_jobs

    if not found.pictures:
        return Jobs()
    folder = Path(args.output) if target is None else target.parent
    make_folder(folder)
    if target is not None:
        jobs = one_job(found.pictures[0], target, args.overwrite)
    else:
        jobs = plan_jobs(found.pictures, folder, FORMATS[args.format or "png"], args.overwrite, found.lone)
    if jobs.todo:
        check_room(folder)
    return jobs


def _worker(model: Found, args: argparse.Namespace, size: Size) -> Callable[[Job], dict[str, Any]]:
    """Load the model; what is returned makes one picture and says what it did."""
    restorer = _load(model, args)
    recipe, options = sampling_options.decided(restorer, args)
    return lambda job: _upscale(restorer, job, args, size, recipe, options)


def _load(model: Found, args: argparse.Namespace) -> Restorer:
    return model_options.load(model, choose_device(args.device))


def _upscale(
    restorer: Restorer, job: Job, args: argparse.Namespace, size: Size, recipe: Recipe, options: SampleOptions
) -> dict[str, Any]:
    from dataclasses import replace

    import torch
    from tqdm import tqdm

    from ..batch.marks import marked, origin_of
    from ..images.faithfulness import faithfulness
    from ..images.finding import check_file
    from ..images.reading import open_picture
    from ..images.writing import check_size, save_picture
    from ..restorers.upscale import upscale

    started = time.perf_counter()
    check_room(job.target.parent)
    check_file(job.source)
    with attributed(job.source):
        picture, origin = open_picture(job.source), origin_of(job.source)
    for note in picture.notes:
        say(f"{job.source}: {note}")
    # Not after minutes.
    check_size(job.target, *size.of(*picture.pixels.shape[1::-1]))
    with tqdm(total=recipe.steps, desc=visible(job.source.name), unit="step", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        result = upscale(
            restorer, picture.channels(), size, options, recipe.color_fix, progress, args.wrap, recipe.fidelity
        )
    if not bool(torch.isfinite(result).all()):
        raise PictureError(f"{job.source}: the model's result holds numbers that are not finite: it is not written")
    height, width = result.shape[-2:]
    larger = picture.enlarged(result[0])
    # Of the levels that are written.
    (faithful,) = faithfulness(larger.channels(), picture.channels())
    larger = replace(larger, metadata=marked(larger.metadata, origin))
    with attributed(job.target):
        notes = save_picture(larger, job.target, args.quality, args.lossless)
    for note in notes:
        say(f"{job.target}: {note}")
    return {
        **paths(input=job.source, output=job.target),
        "width": width,
        "height": height,
        "seconds": round(time.perf_counter() - started, 3),
        "peak_memory_bytes": _peak_memory(restorer.device),
        "seed": args.seed,
        "steps": recipe.steps,
        "model": restorer.name,
        "faithfulness_db": round(faithful.db, 2),
        "faithfulness_delta_e": round(faithful.delta_e, 2),
    }


def _size(args: argparse.Namespace) -> Size:
    from ..images.sizes import Size

    given = {k: getattr(args, k) for k in ("scale", "width", "height", "longest")}
    return Size(**given) if any(v is not None for v in given.values()) else Size(scale=4.0)


def _check_numbers(args: argparse.Namespace) -> None:
    """Before anything is read."""
    if not 1 <= args.quality <= 100:
        raise PGPError(f"the quality is 1 to 100, not {args.quality}")
    sampling_options.own(args)


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
