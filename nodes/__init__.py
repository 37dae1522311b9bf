"""The nodes that a user drags in. Thin: algorithms are in ``pgp_core``, ComfyUI's internals in ``comfy_backbone``."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import comfy_backbone
from .apply import PGPDiffSRApply
from .canvas import PGPDiffSRCanvas
from .color_fix import PGPDiffSRColorFix
from .difficulty import PGPDiffSRAdaptive, PGPDiffSRDifficulty
from .faithfulness import PGPDiffSRFaithfulness
from .load_conditioning import PGPDiffSRLoadConditioning
from .load_guidance import PGPDiffSRLoadGuidance
from .load_model import PGPDiffSRLoadModel
from .load_nano import PGPDiffSRLoadNano
from .one_step import PGPDiffSROneStep
from .planning import PGPDiffSRBuildPlan, PGPDiffSREditPlan, PGPDiffSRSavePlan, PGPDiffSRShowPlan
from .plans import PGPDiffSRApplyPlan, PGPDiffSRLoadPlan, PGPDiffSRPlanPreset
from .plotting import PGPDiffSRPhaseOnly, PGPDiffSRPlotRedundancy
from .redundancy import PGPDiffSRLoadReport, PGPDiffSRRecordRedundancy, PGPDiffSRRedundancyReport
from .save_conditioning import PGPDiffSRSaveConditioning
from .save_model import PGPDiffSRSaveModel
from .tiling import PGPDiffSRTiling
from .upscale import PGPDiffSRUpscale

NODES: list[type[io.ComfyNode]] = [
    PGPDiffSRLoadNano,
    PGPDiffSRApply,
    PGPDiffSROneStep,
    PGPDiffSRCanvas,
    PGPDiffSRColorFix,
    PGPDiffSRSaveConditioning,
    PGPDiffSRLoadConditioning,
    PGPDiffSRLoadModel,
    PGPDiffSRLoadGuidance,
    PGPDiffSRPlanPreset,
    PGPDiffSRLoadPlan,
    PGPDiffSRApplyPlan,
    PGPDiffSRSaveModel,
    PGPDiffSRRecordRedundancy,
    PGPDiffSRRedundancyReport,
    PGPDiffSRLoadReport,
    PGPDiffSRBuildPlan,
    PGPDiffSREditPlan,
    PGPDiffSRSavePlan,
    PGPDiffSRShowPlan,
    PGPDiffSRPlotRedundancy,
    PGPDiffSRPhaseOnly,
    PGPDiffSRTiling,
    PGPDiffSRDifficulty,
    PGPDiffSRAdaptive,
    PGPDiffSRUpscale,
    PGPDiffSRFaithfulness,
]


class PGPDiffSRExtension(ComfyExtension):
    """Registers the nodes; ids and input orders are a promise to saved workflows."""

    async def on_load(self) -> None:
        comfy_backbone.register_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
