"""Node: guidance on a MODEL."""

from __future__ import annotations

from comfy_api.latest import io, ui

from . import comfy_backbone
from .inputs import strength_input


class PGPDiffSRApply(io.ComfyNode):
    """Lets the LQ picture guide a MODEL through its LQ adapter and PEAM."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRApply",
            display_name="Apply PGP-DiffSR",
            category="PGP-DiffSR",
            description=(
                "Guides the model with the low-quality picture: PEAM gives the picture's phase to the UNet's features. "
                "Sample with any core sampler afterwards."
            ),
            search_aliases=["pgp", "peam", "phase exchange", "super resolution", "restore", "guidance"],
            inputs=[
                io.Model.Input("model", tooltip="The model to guide. It is not changed; the output is a patched copy."),
                io.ModelPatch.Input("model_patch", tooltip="PGP-DiffSR guidance, from one of this pack's loaders."),
                io.Image.Input(
                    "image",
                    tooltip="The low-quality picture, already enlarged to the size of the result. One for the whole "
                    "batch, or one per latent.",
                ),
                strength_input(),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    advanced=True,
                    tooltip="Where in the sampling the guidance begins; 0 is the first step.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    advanced=True,
                    tooltip="Where in the sampling the guidance ends; 1 is the last step.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The guided model, for a sampler.")],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        model_patch: io.ModelPatch.Type,
        image: io.Image.Type,
        strength: float,
        start_percent: float,
        end_percent: float,
    ) -> io.NodeOutput:
        guided = comfy_backbone.apply_guidance(model, model_patch, image, strength, start_percent, end_percent)
        note = comfy_backbone.other_plan_note(guided)
        return io.NodeOutput(guided, ui=ui.PreviewText(note) if note else None)
