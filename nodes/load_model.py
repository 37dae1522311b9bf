"""Node: a full or pruned UNet."""

from __future__ import annotations

from comfy_api.latest import io

from . import comfy_backbone


class PGPDiffSRLoadModel(io.ComfyNode):
    """Loads an SDXL-shaped UNet, whole or with only the blocks that a plan keeps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRLoadModel",
            display_name="Load PGP-DiffSR Model",
            category="PGP-DiffSR",
            description=(
                "Loads an SDXL UNet: FaithDiff's file, a PGP-DiffSR model, or any SDXL model; full or pruned. With a "
                "plan, the blocks that it removes are never read. Blocks keep their original numbers, so LoRAs made "
                "for full SDXL fit."
            ),
            search_aliases=["pgp", "faithdiff", "load diffusion model", "unet", "pruned sdxl", "checkpoint"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=comfy_backbone.unet_names(),
                    tooltip="A file in models/diffusion_models: a UNet, a whole SDXL checkpoint, or FaithDiff.bin. Of "
                    "a model in several files any one.",
                ),
                io.Combo.Input(
                    "plan",
                    options=comfy_backbone.plan_choices(),
                    default=comfy_backbone.NO_PLAN,
                    tooltip="Leave the blocks out that this plan removes. A model that was not fine-tuned for the plan "
                    "gets worse; a pruned file needs no plan here.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(comfy_backbone.WEIGHT_DTYPES),
                    default="default",
                    advanced=True,
                    tooltip="How weights are kept: default is the file's, as far as the device supports it. fp8 halves "
                    "the memory of fp16 and costs some precision.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For Apply PGP-DiffSR, LoRA loaders, samplers.")],
        )

    @classmethod
    def execute(cls, model_name: str, plan: str, weight_dtype: str) -> io.NodeOutput:
        return io.NodeOutput(comfy_backbone.load_unet_named(model_name, plan, weight_dtype))
