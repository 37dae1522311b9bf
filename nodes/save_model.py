"""Node: a MODEL into a file."""

from __future__ import annotations

import logging

from comfy_api.latest import io, ui

from . import comfy_backbone

log = logging.getLogger(__name__)


class PGPDiffSRSaveModel(io.ComfyNode):
    """Saves a UNet as it is, pruned and with its LoRAs, for Load PGP-DiffSR Model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRSaveModel",
            display_name="Save PGP-DiffSR Model",
            category="PGP-DiffSR",
            description=(
                "Saves the model's UNet without the blocks that a plan removes; LoRAs and merges are baked in. The "
                "file knows its plan. Guidance is not saved with it. The node says whether core's own loader reads "
                "the file."
            ),
            search_aliases=["pgp", "save diffusion model", "export", "pruned", "bake lora"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL-shaped model, pruned or not."),
                io.String.Input(
                    "filename_prefix",
                    default="diffusion_models/ComfyUI",
                    tooltip="Name below ComfyUI's output folder; a number is added. What is saved below "
                    "diffusion_models/ is in the loader's list after a refresh.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: io.Model.Type, filename_prefix: str) -> io.NodeOutput:
        path = comfy_backbone.save_unet(model, filename_prefix, cls.hidden.prompt, cls.hidden.extra_pnginfo)
        name, loading = comfy_backbone.relative_to_output(path), comfy_backbone.core_loading_of(path)
        log.info("%s: %s", name, loading)
        return io.NodeOutput(ui=ui.PreviewText(f"{name}\n{loading}"))
