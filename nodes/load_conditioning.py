"""Node: CONDITIONING from a file."""

from __future__ import annotations

from comfy_api.latest import io

from . import comfy_backbone


class PGPDiffSRLoadConditioning(io.ComfyNode):
    """Gives a saved CONDITIONING, bit for bit, without a text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRLoadConditioning",
            display_name="Load PGP-DiffSR Conditioning",
            category="PGP-DiffSR",
            description=(
                "Loads an encoded prompt that Save PGP-DiffSR Conditioning wrote. No text encoder is needed, and the "
                "result is the same to the bit."
            ),
            search_aliases=["pgp", "load conditioning", "cached prompt", "text encoder", "prompt file"],
            inputs=[
                io.Combo.Input(
                    "conditioning_name",
                    options=comfy_backbone.conditioning_names(),
                    tooltip="A file in models/conditioning or output/conditioning. Refresh (R) after saving.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The encoded prompt.")],
        )

    @classmethod
    def fingerprint_inputs(cls, conditioning_name: str) -> str:
        return comfy_backbone.conditioning_fingerprint(conditioning_name)

    @classmethod
    def execute(cls, conditioning_name: str) -> io.NodeOutput:
        return io.NodeOutput(comfy_backbone.load_conditioning(conditioning_name))
