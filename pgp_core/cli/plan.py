"""``pgp-diffsr plan list|show|build|apply``."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import PlanError
from ..planner.describe import headline, kept
from ..unet.known import SHAPES
from ..unet.plan import load_plan, presets
from . import plan_apply, plan_build
from .numbers import whole
from .output import emit, table


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("plan", help="prune plans: which transformer blocks of a UNet stay")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the bundled plans")
    listing.add_argument("--json", action="store_true", help="JSON lines on stdout")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", help="what a plan keeps, and what the model then costs")
    show.add_argument("plan", metavar="NAME|FILE")
    latent = whole("a latent's side", 1, 4096)
    show.add_argument("--latent", type=latent, default=128, metavar="N", help="count for an N x N latent (128)")
    show.add_argument("--json", action="store_true", help="one JSON object on stdout")
    show.set_defaults(run=_show)
    plan_build.add_to(actions)
    plan_apply.add_to(actions)


def _list(args: argparse.Namespace) -> int:
    plans = [load_plan(name) for name in presets()]
    if args.json:
        for plan in plans:
            emit({"name": plan.name, "topology": plan.topology, "removed": plan.removed})
    else:
        table([(p.name, f"for {p.topology}, removes {p.removed} blocks") for p in plans])
    return 0


def _show(args: argparse.Namespace) -> int:
    from ..unet.count import count

    plan = load_plan(args.plan)
    shape = SHAPES.get(plan.topology)
    if shape is None:
        raise PlanError(f"plan {plan.name} is for {plan.topology}; counts are known for {', '.join(SHAPES)}")
    counts = count(shape, plan, (args.latent, args.latent))
    if args.json:
        emit(
            {
                "name": plan.name,
                "topology": plan.topology,
                "params": counts.params,
                "macs_conv_linear": counts.macs_conv_linear,
                "macs_total": counts.macs_total,
                "latent": list(counts.latent),
                "stacks": plan.to_json()["stacks"],
            }
        )
        return 0
    full = count(shape, None, (args.latent, args.latent))
    table(
        [
            ("plan", headline(plan)),
            *kept(plan),
            ("parameters", _of(counts.params, full.params, 1e6, "M")),
            ("MACs, conv + linear", _of(counts.macs_conv_linear, full.macs_conv_linear, 1e9, "G")),
            ("MACs with attention", _of(counts.macs_total, full.macs_total, 1e9, "G")),
            ("counted at", f"one UNet call, {args.latent} x {args.latent} latent, 77 tokens"),
        ]
    )
    return 0


def _of(now: int, full: int, unit: float, name: str) -> str:
    return f"{now / unit:.2f} {name} of {full / unit:.2f} {name} ({now / full:.0%})"
