"""``pgp-diffsr analyze``: how redundant a model's blocks are, measured on pictures."""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

from ..sampling.rules import STARTS
from ..visible import visible
from . import model_options, plot
from .device import choose_device
from .inputs import Inputs
from .numbers import count, finite, integer, seed
from .output import emit, say, table


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("analyze", help="measure how redundant a model's transformer blocks are")
    parser.add_argument(
        "--images", nargs="+", type=Path, required=True, metavar="PATH", help="pictures, or folders of pictures"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the report, ends in .json")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw it (PNG); see pgp-diffsr plot")
    parser.add_argument("--plot-kind", choices=plot.KINDS, default=plot.KINDS[0], help=f"what ({plot.KINDS[0]})")
    parser.add_argument("--scale", type=finite, default=4.0, metavar="F", help="as for upscale (4)")
    parser.add_argument("--steps", type=integer, metavar="N", help="Euler steps (20)")
    parser.add_argument("--cfg", type=finite, metavar="F", help="classifier-free guidance (the model's own)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the noise (0)")
    parser.add_argument("--start", choices=STARTS, help="what sampling starts from (the model's own)")
    parser.add_argument("--limit", type=count, metavar="N", help="take the first N pictures only")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (auto)")
    parser.add_argument("--overwrite", action="store_true", help="replace a report that is there already")
    parser.add_argument("--json", action="store_true", help="a summary as one JSON object on stdout")
    model_options.add_to(parser)
    parser.set_defaults(run=_run, one_step=False, wrong_usage=parser.error)


def _run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..errors import ReportError
    from ..images.canvas import canvas
    from ..images.reading import open_picture
    from ..images.sizes import Size
    from ..redundancy.analyze import analyze
    from ..restorers.recipe import decide

    if wrong := model_options.wrong_usage(args, one_step=False):
        args.wrong_usage(wrong)
    if args.output.suffix.lower() != ".json":
        raise ReportError(f"a report ends in .json; {args.output} does not")
    if args.output.exists() and not args.overwrite:
        raise ReportError(f"{args.output} is there already: choose another name, or --overwrite")
    size, wanted = Size(scale=args.scale), Inputs(args.images, args.limit)
    pictures = wanted.pictures
    with model_options.usage(args):
        model = model_options.find(model_options.given(args, one_step=False))
    restorer = model_options.load(model, choose_device(args.device))
    recipe = decide(restorer.recipe, {"steps": args.steps, "cfg": args.cfg, "start": args.start})

    def lq(path: Path) -> Any:
        return canvas(open_picture(path).rgb(), size, restorer.frame)[0]

    with tqdm(total=recipe.steps * len(pictures), unit="step", disable=None, leave=False) as bar:

        def progress(name: str, _done: int, _total: int) -> None:
            bar.set_description(visible(name))
            bar.update()

        report = analyze(
            restorer,
            restorer.name,
            # Reports are shared: names, not where they lie.
            [(p.name, partial(lq, p)) for p in pictures],
            recipe.options(seed=args.seed),
            progress,
            lambda _, error: wanted.fail(error),
        )
    report.save(args.output)
    if args.plot is not None:
        plot.write(plot.draw(report, args.plot_kind), args.plot)
    if report.partial:
        say(f"interrupted after {len(report.measured['pictures'])} pictures; {args.output} is marked as partial")
    if args.json:
        emit({"output": str(args.output), "partial": report.partial, **report.measured})
    table([("report", str(args.output)), *_least(report)])
    return wanted.status() or int(report.partial)


def _least(report: Any, count: int = 5) -> list[tuple[str, str]]:
    """The blocks that change their input least."""
    means = {
        f"{stack} {n}": b.series["all"]["phi_cos"].mean if "all" in b.series else math.nan
        for stack, blocks in report.blocks.items()
        for n, b in blocks.items()
    }
    ranked = sorted((k for k, v in means.items() if not math.isnan(v)), key=means.__getitem__)
    return [(f"least {i + 1}", f"{k}: {means[k]:.4f}") for i, k in enumerate(ranked[:count])]
