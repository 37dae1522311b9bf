"""VAEs, text encoders and vision encoders."""

from __future__ import annotations

from .names import Kind, Names, Sign, first

_VAE_GOES = "for --vae, or ComfyUI's Load VAE"
_TEXT_GOES = "for a prompt: ComfyUI's Load CLIP; here text encoders are a folder of diffusers, --base DIR"
_VISION_GOES = "for ComfyUI's Load CLIP Vision"
_ATTENTION = "layers.0.self_attn.q_proj.weight"
_T5 = "encoder.block.0.layer.0.SelfAttention.q.weight"

# fmt: off
#: Of what has names of its own.
_OTHER_VAES = (
    Sign("a VAE of Wan or Qwen-Image", ("decoder.middle.0.residual.0.gamma",)),
    Sign("a VAE of Wan or Qwen-Image", ("decoder.mid_block.resnets.0.norm1.gamma",)),
    Sign("a VAE of LTX-Video", ("decoder.up_blocks.0.res_blocks.0.conv1.conv.weight",)),
    Sign("a VAE of SeedVR2", ("decoder.up_blocks.2.upsamplers.0.upscale_conv.weight",)),
    Sign("a VAE for video", ("decoder.conv_in.conv.weight",)),
    Sign("a VAE of Stable Video Diffusion", ("decoder.mid.block_1.mix_factor",)),
    Sign("a VAE of Stable Video Diffusion", ("decoder.time_conv_out.weight",)),
    Sign("a VAE of Stable Cascade (stage A)", ("vquantizer.codebook.weight",)),
    Sign("a small VAE for previews (TAESD)", ("taesd_decoder.1.weight",)),
    Sign("a small VAE for previews (TAESD)", ("decoder.layers.0.weight", "decoder.layers.2.conv.0.weight")),
    Sign("a small VAE for previews (TAESD)", ("decoder.layers.1.weight", "decoder.layers.3.conv.0.weight")),
    Sign("a small VAE for previews (TAESD's decoder)", ("1.weight", "3.conv.0.weight", "3.conv.2.weight")),
    Sign("a small VAE for previews (TAESD's encoder)", ("0.weight", "1.conv.0.weight", "1.conv.2.weight")),
    Sign("a VAE of Stable Audio or the like", like=(r"decoder\.layers\.1\.layers\.0\.beta$",)),
)
#: By channels of a latent. Files of one number are alike in names and shapes.
_CHANNELS = {
    4: "a VAE of Stable Diffusion 1, 2 or SDXL (4 channels)",
    16: "a VAE of Flux.1 or Stable Diffusion 3 (16 channels)",
    32: "a VAE of Flux.2 (32 channels)",
    64: "a VAE of HunyuanImage (64 channels)",
}
_VAE = r"(?:encoder|decoder)\.(?:conv_in|conv_out|mid|mid_block|down|up|down_blocks|up_blocks)\."

_CLASS, _PATCH = "embeddings.class_embedding", "embeddings.patch_embedding.weight"
_VISION = (
    Sign("CLIP-G, its vision part", (_CLASS, "encoder.layers.47.layer_norm1.weight")),
    Sign("CLIP-H", (_CLASS, "encoder.layers.31.layer_norm1.weight")),
    Sign("CLIP-L", (_CLASS, "encoder.layers.23.layer_norm1.weight")),
    Sign("SigLIP", (_PATCH, "encoder.layers.0.layer_norm1.weight"), lacks=(_CLASS,)),
    Sign("CLIP", like=(r"(?:.*\.)?(?:vision_model|visual)\.",)),
)

_TOKENS = "embeddings.token_embedding.weight"
_TEXT = (
    Sign("CLIP-G", (_TOKENS, "encoder.layers.31.mlp.fc1.weight")),
    Sign("CLIP-H", (_TOKENS, "encoder.layers.22.mlp.fc1.weight")),
    Sign("CLIP-L", (_TOKENS, "encoder.layers.11.mlp.fc1.weight")),
    Sign("CLIP-G", ("resblocks.31.attn.in_proj_weight",)),
    Sign("CLIP-H", ("resblocks.22.attn.in_proj_weight",)),
    Sign("CLIP", ("resblocks.0.attn.in_proj_weight",)),
    Sign("UMT5-XXL", (_T5, "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"),
         sizes=((_T5, 1, 4096),)),
    Sign("UMT5", (_T5, "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight")),
    Sign("T5-XXL", (_T5,), sizes=((_T5, 1, 4096),)),
    Sign("T5-XL", (_T5,), sizes=((_T5, 1, 2048),)),
    Sign("T5", like=(r"encoder\.block\.\d+\.layer\.",)),
    Sign("Gemma", (_ATTENTION, "layers.0.post_feedforward_layernorm.weight")),
    Sign("GPT-OSS", ("layers.0.self_attn.sinks",)),
    Sign("Qwen2.5", (_ATTENTION, "layers.0.self_attn.k_proj.bias")),
    Sign("Qwen3", (_ATTENTION, "layers.0.self_attn.q_norm.weight")),
    Sign("Llama or Mistral", (_ATTENTION, "layers.0.post_attention_layernorm.weight")),
    Sign("", like=(
        r"(?:.*\.)?(?:text_model|cond_stage_model|conditioner|token_embedding)\.|transformer\.resblocks",)),
)
# fmt: on


def kind(names: Names) -> Kind | None:
    """A VAE, a vision encoder or a text encoder."""
    if found := first(_OTHER_VAES, names):
        return Kind(found, "for ComfyUI's Load VAE")
    if names.any(_VAE):
        channels = names.size("decoder.conv_in.weight", 1) or 4
        latent = _CHANNELS.get(channels, f"a VAE of {channels} channels")
        return Kind(latent, _VAE_GOES if channels == 4 else "for ComfyUI's Load VAE")
    # Language models that see have both parts.
    if _ATTENTION not in names and (found := first(_VISION, names)):
        return Kind(f"a vision encoder ({found})", _VISION_GOES)
    found = first(_TEXT, names)
    if found is None:
        return None
    return Kind(f"a text encoder ({found})" if found else "a text encoder", _TEXT_GOES)
