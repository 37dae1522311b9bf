"""LoRA layers on a UNet in training, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .. import nano

#: What a LoRA touches: PiSA-SR's list.
TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv_in", "conv_out", "conv1", "conv2", "conv_shortcut", "conv"),
)


def add_lora(unet: Any, rank: int, ranks: Mapping[str, int] | None = None, name: str = "default") -> None:
    """Put a LoRA on :data:`TARGETS` of a diffusers UNet; alpha equals the rank, so the scale is 1.

    It starts as PiSA-SR's: down matrices Gaussian, up matrices zero, so nothing changes yet.

    Args:
        ranks: of layers that have another.
        name: of the adapter; one that is there already stays active beside it.
    """
    from peft import LoraConfig

    own = dict(ranks or {})
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=own,
        alpha_pattern=own,
        init_lora_weights="gaussian",
        target_modules=list(TARGETS),
    )
    unet.add_adapter(config, adapter_name=name)
    unet.set_adapter(sorted({*unet.peft_config, name}))


def lora_weights(weights: Mapping[str, torch.Tensor], name: str = "default") -> dict[str, torch.Tensor]:
    """The LoRA's own among a UNet's weights, in PEFT's names without the adapter's."""
    return {k.replace(f".{name}.", "."): v for k, v in weights.items() if ".lora_" in k and f".{name}." in k}


def shrink_input(unet: Any, name: str = "default") -> None:
    """Let nano's S1 LoRA start by shrinking the input to :data:`pgp_core.nano.S1_INPUT`.

    ``conv_in``'s layer must have full rank, see :func:`full_rank`.
    """
    weight = unet.conv_in.weight.detach()
    u, s, vh = torch.linalg.svd((nano.S1_INPUT - 1) * weight.flatten(1), full_matrices=False)
    for half, value in (("lora_A", s.sqrt()[:, None] * vh), ("lora_B", u * s.sqrt())):
        target = unet.get_submodule(f"conv_in.{half}.{name}").weight
        target.data.copy_(value.view_as(target))


def full_rank(layer: torch.nn.Module) -> int:
    """The rank at which a LoRA can be any change of a layer's weight."""
    return min(layer.weight.flatten(1).shape)  # type: ignore[operator]
