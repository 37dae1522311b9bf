"""Restorers that are known by sight; those that run here are families, and are recognised before this is asked."""

from __future__ import annotations

from .names import Kind, Names, Sign, first

_NOT_YET = "this release knows it by sight, but cannot run it"
_OF_OSEDIFF = r"(?:state_dict_unet\.).*\.lora_A\.default_encoder"

# fmt: off
SIGNS = (
    Sign("S3Diff's adapter (for SD-Turbo)", ("state_dict_unet_fuse_mlp.weight", "state_dict_vae_fuse_mlp.weight")),
    Sign("PiSA-SR's adapter (for Stable Diffusion 2.1)", like=(_OF_OSEDIFF + r"_(?:pix|sem)\b",)),
    Sign("CODSR's adapter (for Stable Diffusion 2.1)", like=(r"state_dict_sft\.",)),
    Sign("OSEDiff's adapter (for Stable Diffusion 2.1)", like=(_OF_OSEDIFF + r"\.", r"state_dict_vae\.")),
    Sign("AdcSR", ("body.1.conv_in.weight", "body.1.conv_out.weight", "body.2.resnets.0.conv1.weight")),
    # Every key ends as PEFT's do in memory; its rank is 256, and its base takes tokens of 1024.
    Sign("HYPIR's adapter (for Stable Diffusion 2.1)",
         ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.default.weight",),
         sizes=(("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.default.weight", 0, 256),
                ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.default.weight", 1, 1024))),
)

_OTHERS = (
    Sign("S3Diff's estimator of degradation (de_net.pth, of MM-RealSR)",
         ("conv_first.0.weight", "fc_degree.0.0.weight", "fc_degree.1.0.weight")),
    Sign("SUPIR's control and denoising encoder (beside an SDXL checkpoint)",
         like=(r"project_modules\.\d+\.", r"control_model\.")),
    Sign("SeedVR2", ("vid_in.proj.weight",), like=(r"blocks\.\d+\.(?:mlp|attn)\.",)),
    Sign("StableSR", like=(r"structcond_stage_model\.",)),
    Sign("RAM, which names what a picture shows", ("label_embed",), like=(r"tagging_head\.",)),
)
# fmt: on


def kind(names: Names) -> Kind | None:
    """A restorer, or a part of one, that no family here reads."""
    if found := first(SIGNS, names):
        return Kind(found, instead=_NOT_YET)
    return Kind(found, instead="other nodes run it, not these") if (found := first(_OTHERS, names)) else None
