"""Diffusion transformers, and Stable Cascade: by the names of their authors, of ComfyUI and of diffusers."""

from __future__ import annotations

from .names import NEEDS_SDXL, Kind, Names, Sign, first

_FLUX = "double_blocks.0.img_attn.qkv.weight"
_FLUX_OF_DIFFUSERS = "single_transformer_blocks.0.proj_mlp.weight"
_SD3 = "joint_blocks.0.context_block.attn.qkv.weight"
_SD3_OF_DIFFUSERS = ("transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight", "context_embedder.weight")
_LUMINA = "noise_refiner.0.attention.k_norm.weight"
_LUMINA_OF_DIFFUSERS = "noise_refiner.0.attn.norm_k.weight"
_HUNYUAN = "txt_in.individual_token_refiner.blocks.0.norm1.weight"
#: No transformer; its names are no UNet's either.
_CASCADE = "Stable Cascade"
_CAPTIONS = "cap_embedder.1.weight"

# fmt: off
#: The first that fits is the answer: what is more particular comes before what is less.
SIGNS = (
    # Names of HunyuanVideo begin as Flux's do.
    Sign("HunyuanImage", (_HUNYUAN,), ranks=(("img_in.proj.weight", 4),)),
    Sign("HunyuanVideo", (_HUNYUAN,)),
    Sign("HunyuanVideo", ("context_embedder.token_refiner.refiner_blocks.0.norm1.weight",)),
    Sign("Hunyuan3D", ("latent_in.weight", "cond_in.weight")),
    Sign("HunyuanDiT", ("mlp_t5.0.weight",)),
    Sign("HunyuanDiT", ("text_embedding_padding", "text_embedder.linear_1.weight")),

    Sign("Flux.2", ("double_stream_modulation_img.lin.weight",)),
    Sign("Flux.2", ("double_stream_modulation_img.linear.weight",)),
    Sign("Chroma", like=(r"distilled_guidance_layer\.(?:norms\.0|0\.norms\.0|layers\.0)\.",)),
    Sign("Flux.1 Fill", (_FLUX,), sizes=(("img_in.weight", 1, 384),)),
    Sign("Flux.1 Canny or Depth", (_FLUX,), sizes=(("img_in.weight", 1, 128),)),
    Sign("Flux.1 dev, Krea or Kontext", (_FLUX, "guidance_in.in_layer.weight")),
    Sign("Flux.1 schnell", (_FLUX, "vector_in.in_layer.weight"), lacks=("guidance_in.in_layer.weight",)),
    Sign("Flux.1 Fill", (_FLUX_OF_DIFFUSERS,), sizes=(("x_embedder.weight", 1, 384),)),
    Sign("Flux.1 Canny or Depth", (_FLUX_OF_DIFFUSERS,), sizes=(("x_embedder.weight", 1, 128),)),
    Sign("Flux.1 dev, Krea or Kontext", (_FLUX_OF_DIFFUSERS, "time_text_embed.guidance_embedder.linear_1.weight")),
    Sign("Flux.1 schnell", (_FLUX_OF_DIFFUSERS, "time_text_embed.text_embedder.linear_1.weight")),

    Sign("Stable Diffusion 3.5 large", (_SD3,), sizes=(("x_embedder.proj.weight", 0, 2432),)),
    Sign("Stable Diffusion 3.5 medium", (_SD3, "joint_blocks.0.x_block.attn2.qkv.weight")),
    Sign("Stable Diffusion 3 medium", (_SD3,), sizes=(("x_embedder.proj.weight", 0, 1536),)),
    Sign("Stable Diffusion 3 or 3.5", (_SD3,)),
    Sign("Stable Diffusion 3.5 large", _SD3_OF_DIFFUSERS, sizes=(("pos_embed.proj.weight", 0, 2432),)),
    Sign("Stable Diffusion 3.5 medium", (*_SD3_OF_DIFFUSERS, "transformer_blocks.0.attn2.to_q.weight")),
    Sign("Stable Diffusion 3 medium", _SD3_OF_DIFFUSERS, sizes=(("pos_embed.proj.weight", 0, 1536),)),
    Sign("Stable Diffusion 3 or 3.5", _SD3_OF_DIFFUSERS),

    Sign(f"{_CASCADE}, stage C", ("clf.1.weight", "clip_txt_mapper.weight")),
    Sign(f"{_CASCADE}, stage B", ("clf.1.weight", "effnet_mapper.0.weight")),

    Sign("LTX-Video", ("adaln_single.emb.timestep_embedder.linear_1.bias", "patchify_proj.weight")),
    Sign("LTX-Video", ("time_embed.emb.timestep_embedder.linear_1.weight", "proj_in.weight", "scale_shift_table")),
    Sign("PixArt-alpha", ("t_block.1.weight", "ar_embedder.mlp.0.weight")),
    Sign("PixArt-sigma", ("t_block.1.weight",)),
    Sign("PixArt-alpha", ("adaln_single.emb.resolution_embedder.linear_1.weight", "pos_embed.proj.weight")),
    Sign("PixArt-sigma", ("adaln_single.emb.timestep_embedder.linear_1.weight", "pos_embed.proj.weight")),
    Sign("Sana", ("transformer_blocks.0.ff.conv_inverted.weight",)),

    Sign("Z-Image", (_CAPTIONS, _LUMINA), sizes=((_CAPTIONS, 0, 3840),)),
    Sign("Z-Image", (_CAPTIONS, "all_x_embedder.2-1.weight")),
    Sign("Lumina Image 2", (_CAPTIONS, _LUMINA)),
    Sign("OmniGen2", ("time_caption_embed.timestep_embedder.linear_1.bias", "ref_image_refiner.0.attn.norm_k.weight")),
    Sign("Lumina Image 2", ("time_caption_embed.caption_embedder.1.weight", _LUMINA_OF_DIFFUSERS)),

    Sign("Qwen-Image", ("txt_norm.weight", "img_in.weight", "transformer_blocks.0.img_mlp.net.0.proj.weight")),
    Sign("Wan", ("head.modulation", "patch_embedding.weight")),
    Sign("Wan", ("condition_embedder.time_proj.weight", "patch_embedding.weight")),
    Sign("AuraFlow", ("double_layers.0.attn.w1q.weight",)),
    Sign("AuraFlow", ("joint_transformer_blocks.0.attn.add_q_proj.weight",)),
    Sign("Mochi", ("t5_yproj.weight",)),
    Sign("Cosmos", ("blocks.block0.blocks.0.block.attn.to_q.0.weight",)),
    Sign("Cosmos", ("x_embedder.proj.1.weight", "blocks.0.adaln_modulation_self_attn.1.weight")),
    Sign("HiDream", ("caption_projection.0.linear.weight",)),
    Sign("CogVideoX", ("blocks.0.norm1.linear.weight", "patch_embed.proj.weight")),
    Sign("CogVideoX", ("transformer_blocks.0.norm1.linear.weight", "patch_embed.text_proj.weight")),
    Sign("Kandinsky 5", ("visual_transformer_blocks.0.cross_attention.key_norm.weight",)),
    Sign("Stable Audio", ("transformer.rotary_pos_emb.inv_freq",)),
    Sign("Stable Audio", ("rotary_pos_emb.inv_freq", "project_in.weight")),
    Sign("ACE-Step", ("genre_embedder.weight",)),
)

#: Where nothing says which it is.
_SOME = (
    Sign("Flux, SD3 or the like", like=(
        r"(?:double_blocks|joint_blocks|transformer_blocks|single_transformer_blocks|single_blocks)\.\d",)),
    Sign("", like=(r"blocks\.\d+\.(?:self_attn|cross_attn)",)),
    Sign("", like=(r"(?:x_embedder|cap_embedder|patch_embedding)\.",)),
)
# fmt: on


def kind(names: Names) -> Kind | None:
    """A diffusion transformer, or Stable Cascade, that is known by name; None if it is none."""
    found = first(SIGNS, names)
    if found is None:
        return None
    what = found if found.startswith(_CASCADE) else f"a diffusion transformer ({found})"
    return Kind(what, instead=NEEDS_SDXL)


def some_kind(names: Names) -> Kind | None:
    """A diffusion transformer of whatever name; some upscalers and encoders have names of the same kind."""
    found = first(_SOME, names)
    if found is None:
        return None
    return Kind(f"a diffusion transformer ({found})" if found else "a diffusion transformer", instead=NEEDS_SDXL)
