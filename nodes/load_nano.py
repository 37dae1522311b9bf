"""Node: the bundled nano model."""

from __future__ import annotations

from comfy_api.latest import io

from . import comfy_backbone


class PGPDiffSRLoadNano(io.ComfyNode):
    """Loads nano: MODEL, guidance, VAE and the two learned contexts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRLoadNano",
            display_name="Load PGP-DiffSR Nano",
            category="PGP-DiffSR",
            description=(
                "Loads the small demonstration model that comes with the pack: a pruned UNet, its LQ adapter with "
                "PEAM, a pixel VAE, and the learned positive and negative context. Nothing is downloaded."
            ),
            search_aliases=["pgp", "super resolution", "upscale", "restore", "nano", "faithdiff"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The pruned nano UNet; denoises the residual latent."),
                io.ModelPatch.Output(display_name="model_patch", tooltip="LQ adapter and PEAM, for Apply PGP-DiffSR."),
                io.Vae.Output(display_name="vae", tooltip="Pixel unshuffle by 4: lossless, 48 latent channels."),
                io.Conditioning.Output(display_name="positive", tooltip="Learned context: clean and sharp."),
                io.Conditioning.Output(display_name="negative", tooltip="Learned context: as degraded as the input."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*comfy_backbone.load_nano())
