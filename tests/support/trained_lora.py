"""A LoRA as our training makes it, by PEFT on a UNet, with drawn weights in place of trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pgp_core.training.lora_layers import TARGETS
from pgp_core.unet.lora import from_peft

RANK = 16


def adapted(unet: Any, seed: int = 0) -> Any:
    """The UNet with PEFT's LoRA on what training adapts: rank 16, full rank on ``conv_in``; both halves drawn."""
    from peft import LoraConfig, inject_adapter_in_model

    full = {"conv_in": min(unet.conv_in.weight.flatten(1).shape)}
    inject_adapter_in_model(
        LoraConfig(r=RANK, lora_alpha=RANK, rank_pattern=full, alpha_pattern=full, target_modules=list(TARGETS)), unet
    )
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in unet.named_parameters():
            if ".lora_" in name:
                # Large beside the layer's own weights, so that one layer more or less shows.
                p.copy_(torch.randn(p.shape, generator=g) * (0.05 if ".lora_A." in name else 0.2))
    return unet.eval()


def write(unet: torch.nn.Module, path: Path) -> int:
    """The LoRA's file as training saves it; how many layers it has."""
    lora = from_peft({k: v for k, v in unet.state_dict().items() if ".lora_" in k})
    path.parent.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in lora.items()}, path)
    return sum(k.endswith(".alpha") for k in lora)


def all_taken(loaded: dict[str, Any]) -> None:
    """What checks in ComfyUI tell of core's loader: it found every layer of a trained LoRA's file in the MODEL."""
    assert loaded["layers in the file"] == loaded["layers patched"] > 100, loaded
    assert loaded["not loaded"] == [], loaded
