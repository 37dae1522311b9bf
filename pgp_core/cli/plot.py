"""``pgp-diffsr plot``: a redundancy report, or the phase of pictures, as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .inputs import Inputs
from .numbers import count, whole
from .output import emit, say

KINDS = ("heat-map", "boxes", "over-time", "feature-maps")


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("plot", help="draw a redundancy report, or the phase of pictures")
    actions = parser.add_subparsers(dest="action", required=True, metavar="WHAT")
    report = actions.add_parser("report", help="what pgp-diffsr analyze or the node Redundancy Report wrote")
    report.add_argument("report", type=Path, metavar="FILE")
    report.add_argument("--kind", choices=KINDS, default=KINDS[0], help=f"what to draw ({KINDS[0]})")
    report.add_argument(
        "--measure", choices=("phi_cos", "psi_kl"), default="phi_cos", help="heat map, over time (phi_cos)"
    )
    report.add_argument("--plan", metavar="NAME|FILE", help="heat map: mark what this plan removes")
    report.set_defaults(run=_report)
    phase = actions.add_parser("phase", help="pictures beside what their phase alone holds (the paper's Figure 1)")
    phase.add_argument("pictures", nargs="+", type=Path, metavar="PATH", help="pictures, or folders of pictures")
    phase.add_argument("--limit", type=count, default=4, metavar="N", help="take the first N (4)")
    phase.set_defaults(run=_phase)
    for action in (report, phase):
        action.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="a PNG")
        action.add_argument(
            "--width", type=whole("a width", 16, 16384), default=1024, metavar="N", help="pixels (1024)"
        )
        action.add_argument("--json", action="store_true", help="one JSON object on stdout")


def draw(report: Any, kind: str, width: int = 1024, measure: str = "phi_cos", plan: Any = None) -> Any:
    """A report as ``(height, width, 3)`` uint8.

    Args:
        kind: one of :data:`KINDS`.
    """
    from ..plots import boxes, heat_map, module_maps, over_time

    if kind == "boxes":
        return boxes(report, None, width)
    if kind == "over-time":
        return over_time(report, measure, width)
    if kind == "feature-maps":
        return module_maps(report, width)
    return heat_map(report, plan, measure, width)


def write(pixels: Any, path: Path) -> None:
    """Save a drawing as PNG, whole or not at all.

    Raises:
        PictureError: if it cannot be written.
    """
    from PIL import Image

    from ..errors import PictureError
    from ..files.atomic import replacing

    picture = Image.fromarray(pixels)
    try:
        with replacing(path) as temporary:
            picture.save(temporary, format="PNG")
    except OSError as e:
        raise PictureError(f"{path} cannot be written: {e}") from None


def _report(args: argparse.Namespace) -> int:
    from ..redundancy.report import load_report
    from ..unet.plan import load_plan

    plan = load_plan(args.plan) if args.plan else None
    return _done(args, draw(load_report(args.report), args.kind, args.width, args.measure, plan))


def _phase(args: argparse.Namespace) -> int:
    from ..images.reading import open_picture
    from ..plots import phase_strip

    wanted = Inputs(args.pictures, args.limit)
    found = list(wanted.each(lambda path: open_picture(path).rgb()[0]))
    return _done(args, phase_strip(found, width=args.width)) or wanted.status()


def _done(args: argparse.Namespace, pixels: Any) -> int:
    write(pixels, args.output)
    if args.json:
        emit({"output": str(args.output), "width": pixels.shape[1], "height": pixels.shape[0]})
    say(str(args.output))
    return 0
