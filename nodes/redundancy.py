"""Nodes: measuring redundancy while core samples."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..pgp_core.errors import ReportError
from . import comfy_backbone

#: What a recorded MODEL measures: :class:`comfy_backbone.Recording`.
RecordingType = io.Custom("PGP_RECORDING")
#: A redundancy report: :class:`pgp_core.redundancy.report.Report`.
ReportType = io.Custom("PGP_REPORT")


class PGPDiffSRRecordRedundancy(io.ComfyNode):
    """A MODEL that is measured while it is sampled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRRecordRedundancy",
            display_name="Record Redundancy",
            category="PGP-DiffSR/plans",
            description=(
                "Measures, while a sampler runs, how much each transformer block changes its input and how much "
                "features change from step to step. The sampled picture is the same to the bit."
            ),
            search_aliases=["pgp", "prune", "redundancy", "analyze", "block importance"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL-shaped model, guided or not. It is not changed."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For a sampler; a little slower while it is measured."),
                RecordingType.Output(display_name="recording", tooltip="For Redundancy Report."),
            ],
            # Each run measures anew: a cached recording would go on filling.
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, model: io.Model.Type) -> float:
        return float("nan")

    @classmethod
    def execute(cls, model: io.Model.Type) -> io.NodeOutput:
        return io.NodeOutput(*comfy_backbone.record(model))


class PGPDiffSRRedundancyReport(io.ComfyNode):
    """The report of a recording, when the sampler has ended."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRRedundancyReport",
            display_name="Redundancy Report",
            category="PGP-DiffSR/plans",
            description="What Record Redundancy measured, saved as JSON below ComfyUI's output folder.",
            search_aliases=["pgp", "prune", "redundancy", "report"],
            inputs=[
                RecordingType.Input("recording", tooltip="From Record Redundancy."),
                io.Latent.Input(
                    "latent", tooltip="The sampler's result, so that this node waits for it. It is not read."
                ),
                io.String.Input(
                    "filename_prefix",
                    default="pgp_reports/ComfyUI",
                    tooltip="Name below ComfyUI's output folder; a number is added. What is saved below pgp_reports/ "
                    "is in Load Redundancy Report's list after a refresh.",
                ),
            ],
            outputs=[ReportType.Output(display_name="report", tooltip="For Build Plan and Plot Redundancy.")],
            is_output_node=True,
            # Pictures that are sampled one by one make one report.
            is_input_list=True,
        )

    @classmethod
    def execute(cls, recording: list[object], latent: list[object], filename_prefix: list[str]) -> io.NodeOutput:
        (first,) = {id(r): r for r in recording}.values()
        if not isinstance(first, comfy_backbone.Recording):
            raise ReportError("Redundancy Report: connect Record Redundancy's recording")
        return io.NodeOutput(first.report(), ui=ui.PreviewText(first.save(filename_prefix[0])))


class PGPDiffSRLoadReport(io.ComfyNode):
    """A report from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRLoadReport",
            display_name="Load Redundancy Report",
            category="PGP-DiffSR/plans",
            description="A redundancy report from models/pgp_reports or output/pgp_reports.",
            search_aliases=["pgp", "prune", "redundancy", "report"],
            inputs=[
                io.Combo.Input(
                    "report_name",
                    options=comfy_backbone.report_files(),
                    tooltip="A .json file; refresh (R) after saving one.",
                ),
            ],
            outputs=[ReportType.Output(display_name="report", tooltip="For Build Plan and Plot Redundancy.")],
        )

    @classmethod
    def fingerprint_inputs(cls, report_name: str) -> str:
        try:
            return comfy_backbone.report_named(report_name).dumps()
        except ReportError as e:
            return str(e)

    @classmethod
    def execute(cls, report_name: str) -> io.NodeOutput:
        return io.NodeOutput(comfy_backbone.report_named(report_name))
