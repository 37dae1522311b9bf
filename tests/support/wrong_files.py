"""Files that people take for an SDXL UNet, and what they must be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Wrong:
    """A file, by what it holds or by its bytes (None: a folder), and words of its refusal."""

    words: str
    holds: Callable[[Weights], Weights] | bytes | None


def _only(*names: str, **shapes: Any) -> Callable[[Weights], Weights]:
    return lambda _: {n: torch.zeros(64, 64) for n in names}


def _with(**tensors: torch.Tensor) -> Callable[[Weights], Weights]:
    return lambda unet: {**unet, **{k.replace("__", "."): v for k, v in tensors.items()}}


#: Their LDM names begin as SDXL's do; Stable Diffusion 1.5 has no label_emb and attention at the first level.
_SD15 = (
    "input_blocks.0.0.weight",
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
    "input_blocks.1.1.proj_in.weight",
    "input_blocks.3.0.op.weight",
    "input_blocks.11.0.in_layers.2.weight",
    "out.2.weight",
)

#: Made from a narrow SDXL UNet in LDM names.
FILES: dict[str, Wrong] = {
    "sd15.safetensors": Wrong("Stable Diffusion 1.5 or 2", _only(*_SD15)),
    "sd15-checkpoint.ckpt": Wrong(
        "Stable Diffusion 1.5 or 2",
        _only(*("model.diffusion_model." + k for k in _SD15), "first_stage_model.decoder.conv_in.weight"),
    ),
    "flux.safetensors": Wrong(
        "diffusion transformer", _only("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight")
    ),
    "flux-checkpoint.safetensors": Wrong(
        "diffusion transformer", _only("model.diffusion_model.double_blocks.0.img_attn.qkv.weight")
    ),
    "sd3.safetensors": Wrong("diffusion transformer", _only("joint_blocks.0.x_block.attn.qkv.weight")),
    "sd3-checkpoint.safetensors": Wrong(
        "diffusion transformer", _only("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight")
    ),
    "wan.safetensors": Wrong("diffusion transformer (Wan)", _only("head.modulation", "patch_embedding.weight")),
    "s3diff.safetensors": Wrong(
        "S3Diff's adapter", _only("state_dict_unet_fuse_mlp.weight", "state_dict_vae_fuse_mlp.weight")
    ),
    "esrgan.safetensors": Wrong(
        "an upscaler (ESRGAN)", _only("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_body.weight")
    ),
    "refiner.safetensors": Wrong(
        "refiner", lambda unet: {**unet, "input_blocks.9.0.op.weight": torch.zeros(64, 64, 3, 3)}
    ),
    "inpainting.safetensors": Wrong(
        "inpainting UNet (9 input channels)",
        lambda unet: {**unet, "input_blocks.0.0.weight": torch.zeros(64, 9, 3, 3)},
    ),
    "edm.safetensors": Wrong("EDM model", _with(edm_mean=torch.zeros(4), edm_std=torch.ones(4))),
    "lora.safetensors": Wrong("a LoRA", _only("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight")),
    "lora-of-diffusers.safetensors": Wrong("a LoRA", _only("unet.mid_block.attentions.0.proj_in.lora_A.weight")),
    "lora-in-blocks.safetensors": Wrong(
        "a LoRA", _only("unet.down_blocks.1.attentions.0.proj_in.lora_A.weight", "text_encoder.x")
    ),
    "vae.safetensors": Wrong("a VAE", _only("encoder.conv_in.weight", "decoder.conv_in.weight", "quant_conv.weight")),
    "clip.safetensors": Wrong("a text encoder", _only("text_model.embeddings.position_embedding.weight")),
    "guidance-in-unets.safetensors": Wrong("guidance", _only("pgp.alignment.proj.weight")),
    "controlnet.safetensors": Wrong(
        "conv_out.weight",
        _only(
            "conv_in.weight",
            "add_embedding.linear_1.weight",
            "down_blocks.0.resnets.0.conv1.weight",
            "down_blocks.0.resnets.1.conv1.weight",
            "mid_block.resnets.0.conv1.weight",
        ),
    ),
    "fp8-scaled.safetensors": Wrong(
        "is quantised",
        lambda unet: {**unet, "input_blocks.4.1.proj_in.scale_weight": torch.ones(1), "scaled_fp8": torch.ones(2)},
    ),
    "nf4.safetensors": Wrong(
        "is quantised", lambda unet: {**unet, "input_blocks.4.1.proj_in.weight.absmax": torch.ones(8)}
    ),
    "int8.safetensors": Wrong(
        "no floating-point numbers",
        lambda unet: {**unet, "input_blocks.4.1.proj_in.weight": torch.zeros(64, 64, dtype=torch.int8)},
    ),
    "quantised.gguf": Wrong("is quantised (GGUF)", b"GGUF\3\0\0\0" + bytes(500)),
    "empty.safetensors": Wrong("is empty", b""),
    "empty.bin": Wrong("is empty", b""),
    "text.safetensors": Wrong("damaged or no", b"Once upon a time there was no model.\n" * 50),
    "text.bin": Wrong("damaged or no PyTorch file", b"Once upon a time there was no model.\n" * 50),
    "page.ckpt": Wrong("damaged or no PyTorch file", b"<!DOCTYPE html>\n<html>404 not found</html>\n"),
    "folder.safetensors": Wrong("has no weights", None),
    "folder.bin": Wrong("has no weights", None),
}


def write(folder: Path, unet: Weights) -> None:
    """Write :data:`FILES`; ``unet`` is a narrow SDXL UNet in LDM names."""
    folder.mkdir(parents=True)
    for name, wrong in FILES.items():
        path = folder / name
        if wrong.holds is None:
            path.mkdir()
        elif isinstance(wrong.holds, bytes):
            path.write_bytes(wrong.holds)
        elif path.suffix == ".safetensors":
            save_file({k: v.contiguous().clone() for k, v in wrong.holds(unet).items()}, path)
        else:
            torch.save({"state_dict": wrong.holds(unet)}, path)
