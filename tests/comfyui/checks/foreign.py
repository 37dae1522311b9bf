"""Other models, built by core's own classes without memory, and upscalers by spandrel's: what core says that each is,
and the names and shapes for what we say. What each is called here is core's or spandrel's name of it."""

# ruff: noqa: C408 - settings as calls, which is how core and spandrel take them

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comfy.model_detection as detection
import comfy.ops
import comfy.sd
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from pgp_pack.pgp_core.files.what_it_is import described

_META: dict[str, Any] = {
    "operations": comfy.ops.disable_weight_init,
    "device": "meta",
    "dtype": torch.float16,
}


def check_foreign(out: Path) -> Any:
    """By names of this file: core's word, and ours."""
    found = {}
    for name, module in _transformers():
        found[name] = _both(module.state_dict())
    for name, settings in _UNETS.items():
        found[name] = _both(UNetModel(**{**_SD, **settings}, **_META).state_dict())
    return found


def check_upscalers(out: Path) -> Any:
    """By names of this file: spandrel's word, and ours."""
    import spandrel

    found = {}
    for name, settings in _UPSCALERS.items():
        made = getattr(importlib.import_module(f"spandrel.architectures.{name}"), name)
        weights = made(**settings).state_dict()
        known = (a.architecture for a in spandrel.MAIN_REGISTRY.architectures("detection"))
        whose = next((a.id for a in known if a.detect(dict(weights))), None)
        found[name] = (whose, described({k: tuple(v.shape) for k, v in weights.items()}))
    return found


def check_text_encoders(out: Path) -> Any:
    """By what the tensors are of: core's word, and ours."""
    found = {}
    for name, shapes in _ENCODERS.items():
        kind = comfy.sd.detect_te_model({k: torch.empty(v, device="meta") for k, v in shapes.items()})
        found[name] = (kind.name if kind else None, described(shapes))
    return found


def _both(weights: dict[str, torch.Tensor]) -> tuple[str | None, str | None]:
    config = detection.detect_unet_config(weights, "")
    core = detection.model_config_from_unet_config(config, weights)
    return type(core).__name__ if core else None, described({k: tuple(v.shape) for k, v in weights.items()})


def _transformers() -> Iterator[tuple[str, torch.nn.Module]]:
    for name, (where, settings) in _TRANSFORMERS.items():
        module, _, kind = where.rpartition(".")
        made: Callable[..., torch.nn.Module] = getattr(importlib.import_module(f"comfy.ldm.{module}"), kind)
        yield name, made(**settings, **_META)


# fmt: off
_FLUX = dict(
    image_model="flux", axes_dim=[16, 56, 56], num_heads=24, mlp_ratio=4.0, theta=10000, out_channels=16,
    qkv_bias=True, in_channels=16, hidden_size=3072, context_in_dim=4096, patch_size=2, vec_in_dim=768, depth=1,
    depth_single_blocks=1, guidance_embed=True, txt_ids_dims=[],
)
_FLUX_2 = dict(
    _FLUX, image_model="flux2", axes_dim=[32] * 4, num_heads=48, mlp_ratio=3.0, theta=2000, out_channels=128,
    global_modulation=True, mlp_silu_act=True, qkv_bias=False, ops_bias=False, txt_ids_dims=[3], patch_size=1,
    in_channels=128, hidden_size=6144, context_in_dim=15360, vec_in_dim=None,
)
_CHROMA = {k: v for k, v in _FLUX.items() if k != "guidance_embed"} | dict(
    image_model="chroma", in_channels=64, out_channels=64, in_dim=64, out_dim=3072, hidden_dim=5120, n_layers=5,
)
_SD3 = dict(
    in_channels=16, patch_size=2, out_channels=16, input_size=None, adm_in_channels=2048, num_patches=36864,
    pos_embed_max_size=192, pos_embed_scaling_factor=None, depth=24,
    context_embedder_config={
        "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 1536}},
)
_SD3_LARGE = dict(
    _SD3, depth=38, qk_norm="rms", context_embedder_config={
        "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 2432}},
)
_HUNYUAN = dict(
    image_model="hunyuan_video", in_channels=16, patch_size=[1, 2, 2], out_channels=16, vec_in_dim=768,
    axes_dim=[16, 56, 56], meanflow=False, context_in_dim=4096, hidden_size=3072, mlp_ratio=4.0, num_heads=24, depth=1,
    depth_single_blocks=1, theta=256, qkv_bias=True, byt5=False, guidance_embed=True, use_cond_type_embedding=False,
    vision_in_dim=None, meanflow_sum=False,
)
_HUNYUAN_IMAGE = dict(
    _HUNYUAN, patch_size=[1, 1], in_channels=64, out_channels=64, axes_dim=[64, 64], vec_in_dim=None, byt5=True,
    context_in_dim=3584, hidden_size=3584, num_heads=28,
)
_PIXART = dict(
    image_model="pixart", num_heads=16, patch_size=2, hidden_size=1152, in_channels=4, depth=1, model_max_length=300,
    input_size=128, pe_interpolation=2, micro_condition=False,
)
_WAN = dict(
    image_model="wan2.1", dim=1536, out_dim=16, num_heads=12, ffn_dim=8960, num_layers=1, in_dim=16, model_type="t2v",
)
_LUMINA = dict(
    image_model="lumina2", patch_size=2, in_channels=16, dim=2304, cap_feat_dim=2304, n_layers=2, qk_norm=True,
    n_heads=24, n_kv_heads=8, axes_dims=[32] * 3, axes_lens=[300, 512, 512],
)
_Z_IMAGE = dict(
    _LUMINA, dim=3840, cap_feat_dim=2560, n_heads=30, n_kv_heads=30, axes_dims=[32, 48, 48],
    axes_lens=[1536, 512, 512], z_image_modulation=True, time_scale=1000.0, ffn_dim_multiplier=8 / 3,
)
_MOCHI = dict(
    image_model="mochi_preview", depth=1, patch_size=2, num_heads=24, hidden_size_x=3072, hidden_size_y=1536,
    mlp_ratio_x=4.0, mlp_ratio_y=4.0, learn_sigma=False, in_channels=12, qk_norm=True, qkv_bias=False, out_bias=True,
    patch_embed_bias=True, timestep_mlp_bias=True, timestep_scale=1000.0, use_t5=True, t5_feat_dim=4096,
    t5_token_length=256, rope_theta=10000.0,
)
_HIDREAM = dict(
    image_model="hidream", attention_head_dim=128, axes_dims_rope=[64, 32, 32], caption_channels=[4096, 4096],
    max_resolution=[128, 128], num_attention_heads=20, num_layers=1, num_single_layers=1, llama_layers=[0],
    text_emb_dim=2048, patch_size=2, in_channels=16, out_channels=16, num_routed_experts=4, num_activated_experts=2,
)
_OMNIGEN = dict(
    image_model="omnigen2", num_layers=1, num_refiner_layers=1, hidden_size=2520, num_attention_heads=21,
    num_kv_heads=7, axes_dim_rope=[40, 40, 40], axes_lens=[1024, 1664, 1664], text_feat_dim=2048,
    timestep_scale=1000.0, in_channels=16, patch_size=2, multiple_of=256, norm_eps=1e-5,
)
_SEEDVR2 = dict(
    image_model="seedvr2", vid_dim=2560, heads=20, num_layers=32, norm_eps=1e-5, mlp_type="swiglu", vid_out_norm=True,
)
_CASCADE_B = dict(
    stable_cascade_stage="b", c_hidden=[320, 640, 1280, 1280], nhead=[-1, -1, 20, 20],
    blocks=[[2, 6, 28, 6], [6, 28, 6, 2]], block_repeat=[[1, 1, 1, 1], [3, 3, 2, 2]],
)
_FLUX_MODEL, _NEXT = "flux.model.Flux", "lumina.model.NextDiT"
_TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Flux dev": (_FLUX_MODEL, _FLUX),
    "Flux schnell": (_FLUX_MODEL, dict(_FLUX, guidance_embed=False)),
    "Flux Fill": (_FLUX_MODEL, dict(_FLUX, in_channels=96)),
    "Flux.2": (_FLUX_MODEL, _FLUX_2),
    "Chroma": ("chroma.model.Chroma", _CHROMA),
    "SD3 medium": ("modules.diffusionmodules.mmdit.MMDiT", _SD3),
    "SD3.5 medium": ("modules.diffusionmodules.mmdit.MMDiT", dict(_SD3, qk_norm="rms", x_block_self_attn_layers=[0])),
    "SD3.5 large": ("modules.diffusionmodules.mmdit.MMDiT", _SD3_LARGE),
    "HunyuanVideo": ("hunyuan_video.model.HunyuanVideo", _HUNYUAN),
    "HunyuanImage": ("hunyuan_video.model.HunyuanVideo", _HUNYUAN_IMAGE),
    "HunyuanDiT": (
        "hydit.models.HunYuanDiT", dict(image_model="hydit", depth=40, hidden_size=1408, mlp_ratio=4.3637)),
    "PixArt sigma": ("pixart.pixartms.PixArtMS", _PIXART),
    "PixArt alpha": ("pixart.pixartms.PixArtMS", dict(_PIXART, micro_condition=True, model_max_length=120)),
    "Wan": ("wan.model.WanModel", _WAN),
    "Wan I2V": (
        "wan.model.WanModel", dict(_WAN, dim=5120, num_heads=40, ffn_dim=13824, in_dim=36, model_type="i2v")),
    "Qwen-Image": (
        "qwen_image.model.QwenImageTransformer2DModel", dict(image_model="qwen_image", num_layers=1)),
    "Lumina 2": (_NEXT, _LUMINA),
    "Z-Image": (_NEXT, _Z_IMAGE),
    "Cascade C": ("cascade.stage_c.StageC", dict(c_cond=2048, stable_cascade_stage="c")),
    "Cascade B": ("cascade.stage_b.StageB", _CASCADE_B),
    "AuraFlow": ("aura.mmdit.MMDiT", dict(max_seq=64, cond_seq_dim=2048, n_double_layers=1, n_layers=2)),
    "Mochi": ("genmo.joint_model.asymm_models_joint.AsymmDiTJoint", _MOCHI),
    "LTX-Video": (
        "lightricks.model.LTXVModel",
        dict(image_model="ltxv", num_layers=1, attention_head_dim=64, cross_attention_dim=2048)),
    "SeedVR2": ("seedvr.model.NaDiT", _SEEDVR2),
    "CogVideoX": ("cogvideo.model.CogVideoXTransformer3DModel", dict(image_model="cogvideox", num_layers=1)),
    "HiDream": ("hidream.model.HiDreamImageTransformer2DModel", _HIDREAM),
    "OmniGen2": ("omnigen.omnigen2.OmniGen2Transformer2DModel", _OMNIGEN),
}

_SD: dict[str, Any] = dict(
    image_size=32, out_channels=4, in_channels=4, model_channels=320, num_head_channels=64,
    use_spatial_transformer=True, legacy=False, num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 2, 4, 4],
    transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_output=[1] * 9 + [0] * 3,
    transformer_depth_middle=1, context_dim=768, use_linear_in_transformer=False,
)
_SDXL = dict(
    num_res_blocks=[2, 2, 2], channel_mult=[1, 2, 4], transformer_depth=[0, 0, 2, 2, 10, 10],
    transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10], transformer_depth_middle=10, context_dim=2048,
    use_linear_in_transformer=True, num_classes="sequential", adm_in_channels=2816,
)
_SD2 = dict(context_dim=1024, use_linear_in_transformer=True)
_UNETS: dict[str, dict[str, Any]] = {
    "SD 1.5": {},
    "SD 1.5 inpainting": dict(in_channels=9),
    "SD 2": _SD2,
    "SD 2 unCLIP": dict(_SD2, num_classes="sequential", adm_in_channels=2048),
    "SD x4-upscaler": dict(
        _SD2, in_channels=7, num_classes=1000, model_channels=256, channel_mult=[1, 2, 2, 4],
        transformer_depth=[0, 0, 1, 1, 1, 1, 1, 1], transformer_depth_output=[0] * 3 + [1] * 9),
    "SDXL": _SDXL,
    "SDXL inpainting": dict(_SDXL, in_channels=9),
    "SDXL ip2p": dict(_SDXL, in_channels=8),
    "SDXL refiner": dict(
        model_channels=384, transformer_depth=[0, 0, 4, 4, 4, 4, 0, 0], context_dim=1280, num_classes="sequential",
        transformer_depth_output=[0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0], transformer_depth_middle=4,
        use_linear_in_transformer=True, adm_in_channels=2560),
}

_UPSCALERS: dict[str, dict[str, Any]] = {
    "ESRGAN": dict(num_filters=8, num_blocks=1),
    "Compact": dict(num_feat=8, num_conv=2),
    "SwinIR": dict(img_size=16, window_size=8, embed_dim=12, depths=[1], num_heads=[2]),
    "Swin2SR": dict(img_size=16, window_size=8, embed_dim=12, depths=[1], num_heads=[2]),
    "HAT": dict(depths=(1,), num_heads=(6,)),
    "DAT": dict(depth=[2], num_heads=[2], embed_dim=24, split_size=[4, 4]),
    "SPAN": dict(num_in_ch=3, num_out_ch=3, feature_channels=8),
    "PLKSR": dict(dim=16, n_blocks=2),
    "OmniSR": {},
    "RCAN": dict(n_resgroups=2, n_resblocks=2, n_feats=16, scale=2),
    "MoSR": dict(n_block=2, dim=16),
    "SAFMN": dict(dim=8),
}

_CLIP = "text_model.encoder.layers"
_QWEN = "model.layers.0"
_ENCODERS: dict[str, dict[str, tuple[int, ...]]] = {
    "CLIP-L": {f"{_CLIP}.{i}.mlp.fc1.weight": (3072, 768) for i in range(12)}
    | {"text_model.embeddings.token_embedding.weight": (49408, 768)},
    "CLIP-H": {f"{_CLIP}.{i}.mlp.fc1.weight": (4096, 1024) for i in range(24)}
    | {"text_model.embeddings.token_embedding.weight": (49408, 1024)},
    "CLIP-G": {f"{_CLIP}.{i}.mlp.fc1.weight": (5120, 1280) for i in range(32)}
    | {"text_model.embeddings.token_embedding.weight": (49408, 1280)},
    "T5-XXL": {
        "encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096),
        "encoder.block.23.layer.1.DenseReluDense.wi_1.weight": (10240, 4096)},
    "Qwen2.5": {
        f"{_QWEN}.self_attn.q_proj.weight": (3584, 3584), f"{_QWEN}.self_attn.k_proj.bias": (512,),
        f"{_QWEN}.post_attention_layernorm.weight": (3584,)},
    "Qwen3": {
        f"{_QWEN}.self_attn.q_proj.weight": (4096, 2560), f"{_QWEN}.self_attn.q_norm.weight": (128,),
        f"{_QWEN}.post_attention_layernorm.weight": (2560,)},
    "Gemma": {
        f"{_QWEN}.self_attn.q_proj.weight": (2048, 2304), f"{_QWEN}.post_feedforward_layernorm.weight": (2304,),
        f"{_QWEN}.post_attention_layernorm.weight": (2304,)},
}
# fmt: on
