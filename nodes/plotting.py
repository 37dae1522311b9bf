"""Nodes: pictures of redundancy and of phase."""

from __future__ import annotations

import logging
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..pgp_core.images.checked import checked_pictures
from ..pgp_core.number import number
from ..pgp_core.redundancy.report import MEASURES, Report
from ..pgp_core.unet.plan import PrunePlan
from .plans import Plan
from .redundancy import ReportType

log = logging.getLogger(__name__)

KINDS = ("heat map", "boxes", "over time", "feature maps")


class PGPDiffSRPlotRedundancy(io.ComfyNode):
    """A report as a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRPlotRedundancy",
            display_name="Plot Redundancy",
            category="PGP-DiffSR/plans",
            description=(
                "Draws a redundancy report: all blocks with a plan's cuts marked, box plots of the change from step to "
                "step, or features over timesteps (the paper's Figure 3), or the change over time. Needs matplotlib."
            ),
            search_aliases=["pgp", "prune", "redundancy", "heat map", "plot"],
            inputs=[
                ReportType.Input("report", tooltip="From Redundancy Report or Load Redundancy Report."),
                io.Combo.Input("kind", options=list(KINDS), default="heat map", tooltip="What to draw."),
                io.Combo.Input(
                    "measure",
                    options=list(MEASURES),
                    default=MEASURES[0],
                    tooltip="phi_cos: 1 - cosine. psi_kl: divergence of the softmax over channels. Boxes show both.",
                ),
                io.Int.Input("width", default=1024, min=256, max=4096, tooltip="Pixels."),
                Plan.Input("plan", optional=True, tooltip="Heat map: mark what this plan removes."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture.")],
        )

    @classmethod
    def execute(
        cls, report: Report, kind: str, measure: str, width: int, plan: PrunePlan | None = None
    ) -> io.NodeOutput:
        number(width, "Plot Redundancy: the width is", 16, 16384, whole=True, unit="pixels")
        from ..pgp_core.plots import boxes, heat_map, module_maps, over_time

        if kind == "boxes":
            pixels = boxes(report, None, width)
        elif kind == "over time":
            pixels = over_time(report, measure, width)
        elif kind == "feature maps":
            pixels = module_maps(report, width)
        else:
            pixels = heat_map(report, plan, measure, width)
        image = _image(pixels)
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def _image(pixels: Any) -> torch.Tensor:
    """An IMAGE of ``(H, W, 3)`` uint8."""
    return torch.from_numpy(pixels.copy()).float()[None] / 255


class PGPDiffSRPhaseOnly(io.ComfyNode):
    """Pictures reconstructed from their phase alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRPhaseOnly",
            display_name="PGP-DiffSR Phase Only",
            category="PGP-DiffSR/plans",
            description=(
                "Sets every magnitude of a picture's Fourier transform to one and transforms back: what remains is the "
                "structure that PEAM takes from the low-quality picture (the paper's Figure 1)."
            ),
            search_aliases=["pgp", "phase", "fourier", "fft", "reconstruction"],
            inputs=[
                io.Image.Input("image", tooltip="A picture or a batch."),
                io.Boolean.Input(
                    "strip",
                    default=False,
                    optional=True,
                    tooltip="One picture to look at: each one beside its phase. Needs matplotlib.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="Mid-grey where nothing is.")],
        )

    @classmethod
    def execute(cls, image: io.Image.Type, strip: bool = False) -> io.NodeOutput:
        from ..pgp_core.plots import phase_strip, visible_phase

        image = checked_pictures(image, "PGP-DiffSR Phase Only", log.warning)
        pictures = image[..., :3].movedim(-1, 1).float()
        if strip:
            return io.NodeOutput(_image(phase_strip(pictures)))
        return io.NodeOutput(visible_phase(pictures).movedim(1, -1))
