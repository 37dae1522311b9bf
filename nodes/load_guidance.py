"""Node: a guidance file."""

from __future__ import annotations

from comfy_api.latest import io, ui

from . import comfy_backbone


class PGPDiffSRLoadGuidance(io.ComfyNode):
    """Loads what lets the LQ picture guide a model: LQ adapter and PEAM, or FaithDiff's encoder and alignment."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRLoadGuidance",
            display_name="Load PGP-DiffSR Guidance",
            category="PGP-DiffSR",
            description=(
                "Loads guidance for Apply PGP-DiffSR: an LQ adapter with PEAM, FaithDiff's LQ encoder with its "
                "alignment, or both. The node says what the file holds and whether it is trained."
            ),
            search_aliases=["pgp", "faithdiff", "peam", "lq adapter", "alignment", "model patch", "restore"],
            inputs=[
                io.Combo.Input(
                    "guidance_name",
                    options=comfy_backbone.guidance_names(),
                    tooltip="A file in models/model_patches, or FaithDiff.bin itself, which may lie in "
                    "models/diffusion_models.",
                ),
            ],
            outputs=[io.ModelPatch.Output(display_name="model_patch", tooltip="For Apply PGP-DiffSR.")],
        )

    @classmethod
    def execute(cls, guidance_name: str) -> io.NodeOutput:
        patch = comfy_backbone.load_guidance_named(guidance_name)
        return io.NodeOutput(patch, ui=ui.PreviewText(comfy_backbone.describe_guidance(patch)))
