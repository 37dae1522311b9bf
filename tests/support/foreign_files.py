"""Names and shapes of files that are no model of ours, as their authors' code writes them; no weights but for a few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Shapes = dict[str, tuple[int, ...]]


def of(make: Callable[[], torch.nn.Module]) -> Shapes:
    """Of a module, made without memory."""
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in make().state_dict().items()}


def tensors(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Zeros of these shapes, for files of a few MB at most."""
    return {k: torch.zeros(v, dtype=torch.float16) for k, v in shapes.items()}


# -- adapters of restorers: LoRAs on Stable Diffusion 2.1 with more beside them --------------------------------

#: Layers of SD 2.1's UNet and of its VAE's encoder: name, outputs, inputs.
_UNET = (
    ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", 320, 1024),
    ("down_blocks.0.attentions.0.proj_in", 320, 320),
    ("mid_block.attentions.0.transformer_blocks.0.ff.net.2", 1280, 5120),
    ("up_blocks.1.resnets.0.conv1", 1280, 2560),
    ("conv_out", 4, 320),
)
_VAE = (("encoder.conv_in", 128, 3), ("encoder.down_blocks.0.resnets.0.conv1", 128, 128))


def _lora(layers: Any, rank: int, adapter: str) -> Shapes:
    found: Shapes = {}
    for name, out, into in layers:
        conv = (3, 3) if "conv" in name else ()
        found[f"{name}.lora_A.{adapter}.weight"] = (rank, into, *conv)
        found[f"{name}.lora_B.{adapter}.weight"] = (out, rank, *((1, 1) if conv else ()))
    return found


def s3diff() -> dict[str, Any]:
    """``s3diff.pkl``: LoRAs, the networks that mix them, and lists of the modules that they are for."""
    mlp = {"0.weight": (256, 256), "0.bias": (256,)}
    return {
        "unet_lora_target_modules": ["to_k", "conv1"],
        "vae_lora_target_modules": r"^encoder\..*(conv1|conv_in)$",
        "rank_unet": 32,
        "rank_vae": 16,
        "state_dict_unet": tensors({**_lora(_UNET, 32, "default"), "conv_in.weight": (320, 4, 3, 3)}),
        "state_dict_vae": tensors(_lora(_VAE, 16, "vae_skip")),
        **{f"state_dict_{part}_{n}_mlp": tensors(mlp) for part in ("vae", "unet") for n in ("de", "block")},
        "state_dict_vae_fuse_mlp": tensors({"weight": (256, 320), "bias": (256,)}),
        "state_dict_unet_fuse_mlp": tensors({"weight": (1024, 320), "bias": (1024,)}),
        "w": torch.nn.Parameter(torch.zeros(64), requires_grad=False),
        "state_embeddings": {
            "state_dict_vae_block": tensors({"weight": (6, 64)}),
            "state_dict_unet_block": tensors({"weight": (10, 64)}),
        },
    }


def osediff() -> dict[str, Any]:
    """``osediff.pkl``."""
    conv_in = {"conv_in.base_layer.weight": (320, 4, 3, 3), "conv_in.base_layer.bias": (320,)}
    return {
        "vae_lora_encoder_modules": ["encoder.conv_in"],
        "unet_lora_encoder_modules": [],
        "rank_unet": 4,
        "rank_vae": 4,
        "state_dict_unet": tensors({**_lora(_UNET, 4, "default_encoder"), **conv_in}),
        "state_dict_vae": tensors(_lora(_VAE, 4, "default_encoder")),
    }


def pisa() -> dict[str, Any]:
    """``pisa_sr.pkl``."""
    both = {**_lora(_UNET, 4, "default_encoder_pix"), **_lora(_UNET, 4, "default_encoder_sem")}
    return {"lora_rank_unet_pix": 4, "lora_rank_unet_sem": 4, "state_dict_unet": tensors(both)}


def hypir() -> dict[str, Any]:
    """``HYPIR_sd2.pth``."""
    return tensors(_lora(_UNET[:2], 256, "default"))


def adcsr() -> dict[str, Any]:
    """``net_params_200.pkl``: a UNet of 240 channels, the middle of a decoder, and the same weights again."""
    unet = {
        "conv_in.weight": (240, 12, 3, 3),
        "conv_out.weight": (256, 240, 3, 3),
        "down_blocks.0.resnets.0.norm1.weight": (240,),
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": (240, 240),
    }
    decoder = {"resnets.0.conv1.weight": (64, 64, 3, 3), "attentions.0.to_q.weight": (64, 64)}
    weights = tensors(
        {f"module.body.1.{k}": v for k, v in unet.items()} | {f"module.body.2.{k}": v for k, v in decoder.items()}
    )
    return weights | {"module.body.1.body.11.weight": weights["module.body.1.conv_out.weight"]}


def supir() -> Shapes:
    """``SUPIR-v0Q.ckpt``: what stands beside SDXL's checkpoint."""
    return {
        "model.control_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.project_modules.0.param_free_norm.weight": (320,),
        "first_stage_model.denoise_encoder.conv_in.weight": (128, 3, 3, 3),
    }


# -- LoRAs -----------------------------------------------------------------------------------------------------

#: By what they are for: a key and the shape of each; the spellings of kohya, PEFT, diffusers and ComfyUI.
LORAS: dict[str, tuple[Shapes, ...]] = {
    "SDXL": (
        {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 2048)},
        {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight": (4, 2048)},
        {"lora_unet_down_blocks_2_attentions_1_proj_in.lora_down.weight": (4, 1280)},
        {"base_model.model.mid_block.attentions.0.proj_out.lora_A.weight": (4, 1280)},
    ),
    "Stable Diffusion 1.5": (
        {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 768)},
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight": (4, 768)},
    ),
    "Stable Diffusion 2": ({"unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight": (4, 1024)},),
    "Stable Diffusion 1.5 or 2, or SDXL's refiner": (
        {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 320)},
    ),
    "Flux or a model of its kind": (
        {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)},
        {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072)},
        {"diffusion_model.single_blocks.3.linear1.lora_A.weight": (4, 3072)},
    ),
    "a diffusion transformer (HunyuanVideo)": ({"lora_unet_double_blocks_0_img_mlp_fc1.lora_down.weight": (4, 3072)},),
    "a diffusion transformer (Qwen-Image)": (
        {"transformer.transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight": (4, 3072)},
    ),
    "a diffusion transformer (Wan)": (
        {"diffusion_model.blocks.0.cross_attn.k.lora_A.weight": (4, 5120)},
        {"lora_unet_blocks_0_self_attn_q.lora_down.weight": (4, 5120)},
    ),
    "a diffusion transformer (Z-Image or Lumina)": (
        {"diffusion_model.layers.0.attention.to_q.lora_A.weight": (4, 3840)},
    ),
    "a diffusion transformer (Stable Diffusion 3 or the like)": (
        {"transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight": (4, 1536)},
    ),
    "Stable Diffusion 3": ({"lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight": (4, 1536)},),
    "SDXL's text encoders": (
        {
            "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768),
            "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1280),
        },
    ),
}
