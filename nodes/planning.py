"""Nodes: plans from a redundancy report, by hand, saved and shown."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..pgp_core.errors import PlanError
from ..pgp_core.number import number
from ..pgp_core.planner.coarse import COARSE_KEEPS, coarse
from ..pgp_core.planner.describe import describe
from ..pgp_core.planner.dial import dial
from ..pgp_core.planner.edit import edited, parse_keep
from ..pgp_core.planner.fine import TAU_COS, TAU_KL, by_budget, by_count, by_thresholds
from ..pgp_core.planner.importance import STAGES, topology_of
from ..pgp_core.redundancy.report import Report
from ..pgp_core.unet.plan import PrunePlan
from . import comfy_backbone
from .plans import Plan
from .redundancy import ReportType

METHODS = ("dial", "coarse", "fine: count", "fine: thresholds", "fine: parameters", "fine: multiply-accumulates")
_ALL = "all"


class PGPDiffSRBuildPlan(io.ComfyNode):
    """A plan from a report."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRBuildPlan",
            display_name="Build PGP-DiffSR Plan",
            category="PGP-DiffSR/plans",
            description=(
                "Chooses the transformer blocks to remove by what was measured: the least important first. The dial "
                "needs no fine-tuned weights; coarse and fine are the paper's two stages."
            ),
            search_aliases=["pgp", "prune", "pruning plan", "redundancy", "faster"],
            inputs=[
                ReportType.Input("report", tooltip="From Redundancy Report or Load Redundancy Report."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="dial",
                    tooltip="dial: one number, over all stages. coarse: one block in each stack of encoder and "
                    "bottleneck. fine: fewer blocks in the chosen stage, by a count per stack, by thresholds, or until "
                    "the model is small enough.",
                ),
                io.Float.Input(
                    "amount",
                    default=0.25,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="dial: 0 removes nothing, 1 leaves one block in each stack. A larger amount removes what a "
                    "smaller one does, and more.",
                ),
                io.Int.Input(
                    "count",
                    default=4,
                    min=0,
                    max=100,
                    tooltip="fine: count: blocks that stay in each stack of the stage's smallest scale. The paper: 4.",
                ),
                io.Float.Input(
                    "budget",
                    default=0.5,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="fine: parameters or multiply-accumulates: the most that may stay, as a share of the "
                    "measured model's.",
                ),
                io.Combo.Input(
                    "stage",
                    options=["decoder", "bottleneck", "encoder", _ALL],
                    default="decoder",
                    tooltip="fine: where blocks are removed. The dial and coarse have their own.",
                ),
                Plan.Input(
                    "base", optional=True, tooltip="Cut further from this plan: the coarse one, as in the paper."
                ),
                io.Combo.Input(
                    "coarse_keep",
                    options=list(COARSE_KEEPS),
                    default="report",
                    optional=True,
                    advanced=True,
                    tooltip="coarse: the block that stays: the one that changes its input most, the first or the last.",
                ),
                io.Float.Input(
                    "tau_cos",
                    default=TAU_COS,
                    min=0.0,
                    max=2.0,
                    step=0.001,
                    optional=True,
                    advanced=True,
                    tooltip="fine: thresholds: remove where phi_cos is at most this and psi_kl at most tau_kl.",
                ),
                io.Float.Input(
                    "tau_kl",
                    default=TAU_KL,
                    min=0.0,
                    max=1000.0,
                    step=0.001,
                    optional=True,
                    advanced=True,
                    tooltip="fine: thresholds: see tau_cos.",
                ),
                io.Boolean.Input(
                    "literal",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="fine: thresholds: remove where both are at least their threshold, as the paper's text has "
                    "it, though both measure how different input and output are.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Refuse a report that was measured on another model than this one.",
                ),
            ],
            outputs=[Plan.Output(display_name="plan", tooltip="For Apply Plan, Show Plan, Save Plan.")],
        )

    @classmethod
    def execute(
        cls,
        report: Report,
        method: str,
        amount: float,
        count: int,
        budget: float,
        stage: str,
        base: PrunePlan | None = None,
        coarse_keep: str = "report",
        tau_cos: float = TAU_COS,
        tau_kl: float = TAU_KL,
        literal: bool = False,
        model: io.Model.Type | None = None,
    ) -> io.NodeOutput:
        if model is not None:
            comfy_backbone.check_report(report, model)
        stages = STAGES if stage == _ALL else (stage,)
        topology = topology_of(report)
        start = base or PrunePlan.full(topology)
        if method == "dial":
            plan = dial(report, amount, base=base)
        elif method == "coarse":
            plan = coarse(report, topology, coarse_keep)  # type: ignore[arg-type]
        elif method == "fine: count":
            plan = by_count(start, report, count, stages)
        elif method == "fine: thresholds":
            plan = by_thresholds(start, report, tau_cos, tau_kl, literal, stages)
        else:
            number(budget, "the budget, a share of the measured model's, is", 0, 1, error=PlanError)
            what = "max_params" if method == "fine: parameters" else "max_macs"
            # A report that does not say is refused by name.
            whole = report.totals.get("params" if what == "max_params" else "macs", 0)
            plan = by_budget(start, report, **{what: int(budget * whole)}, stages=stages)  # type: ignore[arg-type]
        return io.NodeOutput(plan, ui=ui.PreviewText(describe(plan)))


class PGPDiffSREditPlan(io.ComfyNode):
    """A plan changed by hand."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def per_stage(stage: str) -> io.Int.Input:
            return io.Int.Input(
                stage,
                default=-1,
                min=-1,
                max=100,
                tooltip=f"Blocks kept in each stack of the {stage}; -1 leaves the plan's.",
            )

        return io.Schema(
            node_id="PGPDiffSREditPlan",
            display_name="Edit PGP-DiffSR Plan",
            category="PGP-DiffSR/plans",
            description="Changes a plan by hand: how many blocks stay in each stage, or exactly which in a stack.",
            search_aliases=["pgp", "prune", "pruning plan", "edit"],
            inputs=[
                Plan.Input("plan", tooltip="The plan to start from. It is not changed."),
                *(per_stage(stage) for stage in STAGES),
                io.String.Input(
                    "exact",
                    default="",
                    multiline=True,
                    tooltip="Exact blocks, such as: up_blocks.0.attentions.1: 0, 3, 9; mid_block.attentions.0: none",
                ),
                ReportType.Input(
                    "report",
                    optional=True,
                    tooltip="Numbers then choose the most important blocks; without it, blocks spread evenly.",
                ),
            ],
            outputs=[Plan.Output(display_name="plan", tooltip="The changed plan.")],
        )

    @classmethod
    def execute(
        cls, plan: PrunePlan, encoder: int, bottleneck: int, decoder: int, exact: str, report: Report | None = None
    ) -> io.NodeOutput:
        numbers = {"encoder": encoder, "bottleneck": bottleneck, "decoder": decoder}
        keep = {stage: n for stage, n in numbers.items() if n >= 0} | parse_keep(exact)
        changed = edited(plan, keep, report) if keep else plan
        return io.NodeOutput(changed, ui=ui.PreviewText(describe(changed)))


class PGPDiffSRSavePlan(io.ComfyNode):
    """A plan into a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRSavePlan",
            display_name="Save PGP-DiffSR Plan",
            category="PGP-DiffSR/plans",
            description="Saves a plan in output/pgp_plans, where Load Plan and Load Model find it after a refresh.",
            search_aliases=["pgp", "prune", "pruning plan", "save"],
            inputs=[
                Plan.Input("plan", tooltip="The plan to save."),
                io.String.Input("name", default="my-plan", tooltip="A plain name, without a path or an ending."),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace a plan of that name."),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, plan: PrunePlan, name: str, overwrite: bool) -> io.NodeOutput:
        return io.NodeOutput(ui=ui.PreviewText(comfy_backbone.save_plan_named(plan, name, overwrite)))


class PGPDiffSRShowPlan(io.ComfyNode):
    """What a plan keeps and saves."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRShowPlan",
            display_name="Show PGP-DiffSR Plan",
            category="PGP-DiffSR/plans",
            description="The blocks that a plan keeps, and parameters and multiply-accumulates before and after.",
            search_aliases=["pgp", "prune", "pruning plan", "show", "count"],
            inputs=[Plan.Input("plan", tooltip="The plan to show.")],
            outputs=[io.String.Output(display_name="text", tooltip="The same text.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, plan: PrunePlan) -> io.NodeOutput:
        if not isinstance(plan, PrunePlan):
            raise PlanError("Show Plan: connect one of the plan nodes")
        text = describe(plan)
        return io.NodeOutput(text, ui=ui.PreviewText(text))
