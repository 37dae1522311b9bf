"""Files of a whole SDXL, narrow: a diffusers folder with every component, and the same as one checkpoint."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import Any

import faithdiff_file
import torch
from safetensors.torch import save_file

from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.topology import KeyMap

SCALING = 0.13025
#: Half of the narrow UNet's tokens comes from each text encoder.
TEXT_WIDTH = 16


def vae(seed: int = 0) -> Any:
    """A narrow ``AutoencoderKL`` of SDXL's depth."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            block_out_channels=(32, 64, 64, 96),
            layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            sample_size=1024,
            scaling_factor=SCALING,
        ).eval()


def ldm_vae(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The VAE's tensors under the names that checkpoints use."""
    out = {}
    for key, value in weights.items():
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
        name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{3 - int(m[1])}", name).replace(".resnets.", ".block.")
        name = re.sub(r"mid_block\.block\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = name.replace("upsamplers.0", "upsample").replace("conv_shortcut", "nin_shortcut")
        name = name.replace("conv_norm_out", "norm_out")
        if ".attentions.0." in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            name = re.sub(r"\.to_([qkv])\.", r".\1.", name).replace("to_out.0", "proj_out")
            # There they are 1x1 convolutions.
            value = value[..., None, None] if value.dim() == 2 else value
        out[name] = value
    return out


def _tokenizer(folder: Path, pad: str) -> None:
    """CLIP's tokenizer with a vocabulary of single letters."""
    folder.mkdir(parents=True)
    letters = [*string.ascii_lowercase, *string.digits, *",.!"]
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings = {**special, "pad_token": pad, "model_max_length": 12, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps({**special, "pad_token": pad}))


def _text_encoder(kind: Any, projection: int, seed: int) -> Any:
    from transformers import CLIPTextConfig

    config = CLIPTextConfig(
        vocab_size=80,
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        projection_dim=projection,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=78,
        eos_token_id=79,
        pad_token_id=79,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
        for p in model.parameters():
            torch.nn.init.normal_(p, 0.5 if p.dim() == 1 else 0.0, 0.5)
    return model.eval()


def text_encoders(seed: int = 0) -> tuple[Any, Any]:
    """CLIP-L and bigG, narrow."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    return _text_encoder(CLIPTextModel, TEXT_WIDTH, seed), _text_encoder(CLIPTextModelWithProjection, 32, seed + 1)


def unet_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """A narrow SDXL UNet in diffusers' names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(build_unet(faithdiff_file.NARROW).state_dict())


def folder(path: Path, unet: dict[str, torch.Tensor], prediction: str = "epsilon") -> Path:
    """A diffusers folder."""
    for name in ("unet", "scheduler"):
        (path / name).mkdir(parents=True)
    save_file(unet, path / "unet" / "diffusion_pytorch_model.safetensors")
    (path / "unet" / "config.json").write_text("{}")
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": prediction}))
    vae().save_pretrained(path / "vae")
    one, two = text_encoders()
    one.save_pretrained(path / "text_encoder")
    two.save_pretrained(path / "text_encoder_2")
    _tokenizer(path / "tokenizer", "<|endoftext|>")
    _tokenizer(path / "tokenizer_2", "!")
    return path


def checkpoint(path: Path, unet: dict[str, torch.Tensor], **more: torch.Tensor) -> Path:
    """One file with UNet and VAE, as SDXL is published."""
    names = KeyMap()
    weights = {f"model.diffusion_model.{names.to_ldm(k)}": v for k, v in unet.items()}
    weights |= {f"first_stage_model.{k}": v for k, v in ldm_vae(vae().state_dict()).items()}
    weights["conditioner.embedders.0.transformer.text_model.final_layer_norm.bias"] = torch.zeros(3)
    save_file({k: v.contiguous() for k, v in (weights | more).items()}, path)
    return path
