"""LoRA layers on a UNet in training, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .. import nano
from ..errors import CheckpointError
from ..lora import PREFIX

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


@torch.no_grad()
def load_lora(unet: Any, weights: Mapping[str, torch.Tensor], source: str, name: str = "default") -> None:
    """Give a LoRA that :func:`add_lora` made the weights of a file.

    Args:
        weights: in trainers' names, see :func:`pgp_core.lora.diffusers_names`.

    Raises:
        CheckpointError: if a layer is missing, or of another rank.
    """
    for key, p in unet.named_parameters():
        module, found, tail = key.partition(".lora_")
        if not found or f".{name}." not in f".{tail}":
            continue
        stem, half = PREFIX + module.replace(".", "_"), "down" if tail.startswith("A") else "up"
        value = weights.get(f"{stem}.lora_{half}.weight")
        if value is None or value.numel() != p.numel():
            what = "has no layer" if value is None else "has another rank at"
            raise CheckpointError(f"{source} {what} {module}: it cannot go on in this run")
        alpha = float(weights.get(f"{stem}.alpha", torch.tensor(float(p.shape[half == "up"]))))
        # Here the scale is 1.
        scale = 1.0 if half == "down" else alpha / p.shape[1]
        p.copy_(value.to(p).reshape(p.shape) * scale)


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
