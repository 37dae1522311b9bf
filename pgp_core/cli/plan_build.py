"""``pgp-diffsr plan build``: a plan from a redundancy report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import PlanError
from ..planner import by_budget, by_count, by_thresholds, check_name, coarse, dial, save_plan
from ..planner.coarse import COARSE_KEEPS
from ..planner.describe import headline, kept
from ..planner.fine import DECODER, TAU_COS, TAU_KL, totals
from ..planner.importance import STAGES
from ..redundancy.report import Report, load_report
from ..unet.known import SDXL, TOPOLOGIES
from ..unet.plan import PrunePlan, load_plan
from .numbers import budget, finite
from .output import emit, table

#: Options of some methods only; given to another they are a mistake.
_METHODS = {
    "coarse_keep": ("coarse", "fine"),
    "tau_cos": ("fine",),
    "tau_kl": ("fine",),
    "literal": ("fine",),
    "count": ("fine",),
    "max_params": ("fine",),
    "max_macs": ("fine",),
    "amount": ("dial",),
    "stage": ("fine", "dial"),
    "base": ("fine", "dial"),
}


def add_to(actions: Any) -> None:
    """Register the command."""
    parser = actions.add_parser("build", help="make a plan from a redundancy report (pgp-diffsr analyze)")
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="ends in .json")
    add("--report", type=Path, metavar="FILE", help="of the model; only coarse pruning can do without")
    add("--model", type=Path, metavar="FILE", help="refuse a report that was measured on another model than this one")
    add(
        "--method",
        choices=("coarse", "fine", "dial"),
        required=True,
        help="coarse: one block in each stack of encoder and bottleneck; fine: cut the decoder's redundant blocks "
        "too; dial: cut a share of all, least important first",
    )
    add("--coarse-keep", choices=COARSE_KEEPS, help="the block that stays: by report (the default), first or last")
    add(
        "--tau-cos",
        type=finite,
        metavar="F",
        help=f"fine: cut where the mean of Phi_cos is at most this ({TAU_COS})",
    )
    add(
        "--tau-kl",
        type=finite,
        metavar="F",
        help=f"fine: and the mean of Psi_KL is at most this ({TAU_KL})",
    )
    add("--literal", action="store_true", default=None, help="fine: at least instead of at most, as the paper writes")
    add(
        "--count",
        action="append",
        metavar="N|STACK=N",
        help="fine: blocks kept in each stack at the smallest scale, or in one stack (repeatable)",
    )
    add(
        "--max-params",
        type=budget,
        metavar="N",
        help="fine: cut until the UNet has no more parameters",
    )
    add(
        "--max-macs",
        type=budget,
        metavar="N",
        help="fine: cut until a call needs no more multiply-accumulates",
    )
    add("--amount", type=finite, metavar="F", help="dial: 0 cuts nothing, 1 leaves one block a stack")
    add("--stage", action="append", choices=STAGES, help="what is cut (fine: decoder; dial: all); repeatable")
    add("--base", metavar="NAME|FILE", help='plan to cut further (fine: the coarse one; dial: full); "full" is one')
    add("--name", help="of the plan; by default named after the method")
    add("--topology", choices=sorted(TOPOLOGIES), help="of the model (the report's; without one, sdxl)")
    add("--overwrite", action="store_true", help="replace FILE if it is there")
    add("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=_run, usage=parser.error)


def _run(args: argparse.Namespace) -> int:
    for option, methods in _METHODS.items():
        if getattr(args, option) is not None and args.method not in methods:
            args.usage(f"--{option.replace('_', '-')} is for --method {' or '.join(methods)}")
    if args.method == "dial" and args.amount is None:
        args.usage("--method dial needs --amount")
    if args.name is not None:
        check_name(args.name)
    report = load_report(args.report) if args.report else None
    if args.model is not None:
        _check_model(args, report)
    plan = _build(args, report)
    save_plan(plan, args.output, args.overwrite)
    cost = totals(plan, report) if report else {}
    if args.json:
        stacks = plan.to_json()["stacks"]
        about = {"output": str(args.output), "name": plan.name, "topology": plan.topology, "removed": plan.removed}
        emit({**about, **cost, "stacks": stacks})
        return 0
    words = {"params": ("parameters", 1e6, "M"), "macs": ("MACs as measured", 1e9, "G")}
    table(
        [
            ("plan", headline(plan)),
            *kept(plan),
            *((words[k][0], f"{v / words[k][1]:.2f} {words[k][2]}") for k, v in cost.items()),
            ("written to", str(args.output)),
        ]
    )
    return 0


def _check_model(args: argparse.Namespace, report: Report | None) -> None:
    from ..files.weights import open_weights
    from ..redundancy.identity import check_model, fingerprint_file

    if report is None:
        args.usage("--model is held against a report: give one with --report")
    else:
        with open_weights(args.model) as file:
            check_model(report, fingerprint_file(file), args.model.name)


def _build(args: argparse.Namespace, report: Report | None) -> PrunePlan:
    topology = TOPOLOGIES.get(args.topology or (report.topology if report else SDXL.name), SDXL)
    keep: Any = args.coarse_keep or "report"
    if args.method == "coarse":
        return coarse(report, topology, keep, args.name)
    if report is None:
        raise PlanError(f"--method {args.method} goes by a report: give one with --report")
    base = None
    if args.base is not None:
        base = PrunePlan.full(topology) if args.base == "full" else load_plan(args.base)
    if args.method == "dial":
        if base is None and args.topology:
            base = PrunePlan.full(topology)
        return dial(report, args.amount, args.stage or STAGES, base, args.name)
    base = base or coarse(report, topology, keep)
    stages = args.stage or DECODER
    ways = {
        "--count": args.count,
        "a budget": args.max_params if args.max_params is not None else args.max_macs,
        "thresholds": next((x for x in (args.tau_cos, args.tau_kl, args.literal) if x is not None), None),
    }
    chosen = [k for k, v in ways.items() if v is not None]
    if len(chosen) > 1:
        args.usage(f"{' and '.join(chosen)} are different ways to cut: choose one")
    if args.count:
        return by_count(base, report, _count(args), stages, name=args.name)
    if chosen == ["a budget"]:
        return by_budget(base, report, args.max_params, args.max_macs, stages, name=args.name)
    tau_cos = TAU_COS if args.tau_cos is None else args.tau_cos
    tau_kl = TAU_KL if args.tau_kl is None else args.tau_kl
    return by_thresholds(base, report, tau_cos, tau_kl, bool(args.literal), stages, name=args.name)


def _count(args: argparse.Namespace) -> int | dict[str, int]:
    """One number, or one for each stack named."""
    texts: list[str] = args.count
    try:
        if len(texts) == 1 and "=" not in texts[0]:
            return int(texts[0])
        pairs = [t.partition("=") for t in texts]
        counts = {stack: int(n) for stack, _, n in pairs}
    except ValueError:
        args.usage(f"--count is one number, or STACK=N as often as wanted, not {' '.join(texts)}")
        raise
    if len(counts) < len(texts):
        args.usage("--count names a stack twice")
    return counts
