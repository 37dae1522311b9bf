"""LoRA layers on a UNet in training, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import CheckpointError, name_some
from ..progress import Say
from ..restorers.nano import model as nano
from ..unet.lora import LoRA, read
from ..unet.lora.kinds import Matrices

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
def load_lora(
    unet: Any,
    lora: LoRA | Mapping[str, torch.Tensor],
    source: str = "LoRA",
    name: str = "default",
    say: Say | None = None,
) -> None:
    """Give a LoRA that :func:`add_lora` made the weights of a file.

    Args:
        lora: or a file's tensors, see :func:`pgp_core.unet.lora.read`.
        source: what to call those.
        say: told in a line of each kind of layer that is left out, as those of blocks that a plan removed.

    Raises:
        CheckpointError: if a layer is missing, of another rank, more than two matrices, or of a module that this run
            trains no LoRA on.
    """
    lora = lora if isinstance(lora, LoRA) else read(lora, source)
    used = set()
    for key, p in unet.named_parameters():
        module, found, tail = key.partition(".lora_")
        if not found or f".{name}." not in f".{tail}":
            continue
        layer = lora.layers.get(module)
        if layer is None:
            raise CheckpointError(f"{lora.source} has no layer {module}: it cannot go on in this run")
        kind = layer.kind
        if not isinstance(kind, Matrices) or (kind.mid, layer.magnitude, layer.bias) != (None, None, None):
            raise CheckpointError(f"{lora.source} is more than a plain LoRA at {module}: it cannot go on in this run")
        # Here the scale is 1.
        value = kind.down if tail.startswith("A") else kind.up.float() * kind.scale
        if value.numel() != p.numel():
            raise CheckpointError(f"{lora.source} has another rank at {module}: it cannot go on in this run")
        p.copy_(value.to(p).reshape(p.shape))
        used.add(module)
    there = {n.removesuffix(".base_layer") for n, m in unet.named_modules() if hasattr(m, "weight")}
    more = [n for n in lora.layers if n in there and n not in used]
    if more:
        raise CheckpointError(
            f"{lora.source} has layers on which this run trains no LoRA, so it cannot go on here: {name_some(more)}"
        )
    if say is not None:
        for line in lora.left_out(used):
            say(line)


def shrink_input(unet: Any, name: str = "default") -> None:
    """Let nano's S1 LoRA start by shrinking the input to :data:`pgp_core.restorers.nano.model.S1_INPUT`.

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
