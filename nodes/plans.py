"""Nodes: prune plans, and a plan on a MODEL."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..pgp_core.errors import PlanError
from ..pgp_core.unet.plan import PrunePlan, presets
from . import comfy_backbone

#: The type of a prune plan on the wire: :class:`pgp_core.unet.plan.PrunePlan`.
Plan = io.Custom("PGP_PLAN")


class PGPDiffSRPlanPreset(io.ComfyNode):
    """A bundled plan."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRPlanPreset",
            display_name="PGP-DiffSR Plan Preset",
            category="PGP-DiffSR/plans",
            description="A prune plan that comes with the pack. pgp-sdxl is the paper's: 23 of 70 blocks stay.",
            search_aliases=["pgp", "prune", "pruning plan", "preset"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=presets(),
                    default="pgp-sdxl",
                    tooltip="Plans for SDXL (pgp-sdxl-coarse cuts encoder and bottleneck only) and for nano.",
                ),
            ],
            outputs=[Plan.Output(display_name="plan", tooltip="For Apply PGP-DiffSR Plan.")],
        )

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        return io.NodeOutput(comfy_backbone.plan_named(name))


class PGPDiffSRLoadPlan(io.ComfyNode):
    """A plan from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRLoadPlan",
            display_name="Load PGP-DiffSR Plan",
            category="PGP-DiffSR/plans",
            description="A prune plan from models/pgp_plans or output/pgp_plans.",
            search_aliases=["pgp", "prune", "pruning plan", "load plan"],
            inputs=[
                io.Combo.Input(
                    "plan_name",
                    options=comfy_backbone.plan_files(),
                    tooltip="A .json file; refresh (R) after saving one.",
                ),
            ],
            outputs=[Plan.Output(display_name="plan", tooltip="For Apply PGP-DiffSR Plan.")],
        )

    @classmethod
    def fingerprint_inputs(cls, plan_name: str) -> str:
        # The plan itself: a file that was edited is read again.
        try:
            plan = comfy_backbone.plan_named(plan_name)
        except PlanError as e:
            return str(e)
        return plan.dumps() if plan else ""

    @classmethod
    def execute(cls, plan_name: str) -> io.NodeOutput:
        return io.NodeOutput(comfy_backbone.plan_named(plan_name))


class PGPDiffSRApplyPlan(io.ComfyNode):
    """Passes over the blocks that a plan removes, on a MODEL that is loaded already."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRApplyPlan",
            display_name="Apply PGP-DiffSR Plan",
            category="PGP-DiffSR/plans",
            description=(
                "Passes over the transformer blocks that a plan removes. Works on any loaded SDXL model, with its "
                "LoRAs, and gives what the pruned file gives. It saves time at every step but no memory: for that, "
                "load the file with the plan."
            ),
            search_aliases=["pgp", "prune", "skip blocks", "faster", "layer skip"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL model. It is not changed; the output is a patched copy."),
                Plan.Input("plan", tooltip="From one of the plan nodes."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The pruned model.")],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, plan: PrunePlan) -> io.NodeOutput:
        pruned, saving = comfy_backbone.apply_plan(model, plan)
        said = f"{saving} {comfy_backbone.other_plan_note(pruned)}".strip()
        return io.NodeOutput(pruned, ui=ui.PreviewText(said))
