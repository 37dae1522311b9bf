"""LoRA files for an SDXL-shaped UNet, in the naming that ComfyUI, diffusers and others read.

Keys are ``lora_unet_<module name with underscores>`` (diffusers' name; LDM's is read too) with ``.lora_down.weight``,
``.lora_up.weight`` and ``.alpha``. Block numbers are the original ones, so a LoRA fits every plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .errors import CheckpointError, name_some
from .one_step import Predict
from .topology import KeyMap

PREFIX = "lora_unet_"

#: What may stand before a module's own, dotted name.
_DOTTED = ("base_model.model.unet.", "base_model.model.", "diffusion_model.", "unet.")
#: Ends of keys, and what they are called here.
_TAILS = {
    ".lora_A.weight": ".lora_down.weight",
    ".lora_B.weight": ".lora_up.weight",
    ".lora_down.weight": ".lora_down.weight",
    ".lora_up.weight": ".lora_up.weight",
    ".alpha": ".alpha",
}
#: Ends of keys by which a layer is more than two matrices multiplied.
_MORE = (".dora_scale", ".lora_magnitude_vector", ".lora_mid.weight")


def diffusers_names(weights: Mapping[str, torch.Tensor], source: str = "LoRA") -> dict[str, torch.Tensor]:
    """A LoRA's UNet layers under the names that :func:`merge` reads.

    Read are diffusers' own files (``unet.<module>.lora_A.weight``) and what trainers write
    (``lora_unet_<module>.lora_down.weight``). Text encoders' layers are left out: prompts are encoded apart.

    Raises:
        CheckpointError: if it is a DoRA or has middle matrices.
    """
    more = [k for k in weights if k.endswith(_MORE)]
    if more:
        raise CheckpointError(f"{source} is more than a LoRA ({name_some(more)}): merge it into the UNet elsewhere")
    out = {}
    for key, value in weights.items():
        tail = next((t for t in _TAILS if key.endswith(t)), None)
        if tail is None:
            continue
        module = key[: -len(tail)]
        prefix = next((p for p in _DOTTED if module.startswith(p)), None)
        if prefix is not None:
            module = PREFIX + module[len(prefix) :].replace(".", "_")
        if module.startswith(PREFIX):
            out[module + _TAILS[tail]] = value
    return out


def from_peft(weights: Mapping[str, torch.Tensor], alpha: float | None = None) -> dict[str, torch.Tensor]:
    """Rename PEFT's keys (``<module>.lora_A[.default].weight``), adding ``alpha`` (the scale times the rank).

    Args:
        alpha: of every layer; by default each layer's own rank, so that the scale is 1.
    """
    out = {}
    for key, value in weights.items():
        stem, _, tail = key.partition(".lora_")
        name, down = PREFIX + stem.replace(".", "_"), tail.startswith("A")
        out[f"{name}.lora_{'down' if down else 'up'}.weight"] = value
        rank = len(value) if down else value.shape[1]
        out[f"{name}.alpha"] = torch.tensor(float(rank if alpha is None else alpha))
    return out


@torch.no_grad()
def merge(unet: torch.nn.Module, lora: Mapping[str, torch.Tensor], strength: float = 1.0, source: str = "LoRA") -> int:
    """Add a LoRA to a diffusers UNet's weights, in place: ``W += strength * alpha / rank * up @ down``.

    Layers of blocks that a plan removed are passed over.

    Returns:
        how many layers it changed.

    Raises:
        CheckpointError: if no layer fits, or a layer's shape does not; the UNet is then unchanged.
    """
    layers = _layers(unet, lora, source)
    for layer in layers:
        delta = (layer.up @ layer.down) * (strength * layer.scale)
        layer.module.weight.add_(delta.reshape(layer.module.weight.shape).to(layer.module.weight))
    return len(layers)


class Beside:
    """A LoRA that stands beside a diffusers UNet's weights instead of in them, so that it can be left out.

    Its layers add ``alpha / rank * up(down(x))`` to what the UNet's own give: the same as merged, up to rounding.

    Attributes:
        layers: how many layers it has here; of blocks that a plan removed there are none.
        active: whether it acts.

    Raises:
        CheckpointError: if no layer fits, or one does not.
    """

    @torch.no_grad()
    def __init__(self, unet: torch.nn.Module, lora: Mapping[str, torch.Tensor], source: str = "LoRA"):
        self.active = True
        layers = _layers(unet, lora, source)
        self.layers = len(layers)
        odd = [n for n in layers if not isinstance(n.module, (torch.nn.Linear, torch.nn.Conv2d))]
        if odd:
            raise CheckpointError(f"{source}: {odd[0].stem} is neither a linear layer nor a convolution")
        for layer in layers:
            layer.module.register_forward_hook(self._hook(layer))

    def without(self, predict: Predict) -> Predict:
        """A prediction of the same UNet without this LoRA."""

        def bare(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.active = False
            try:
                return predict(x, t)
            finally:
                self.active = True

        return bare

    def _hook(self, layer: _Layer) -> Callable[[torch.nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]:
        weight = layer.module.weight
        down, up = (x.to(weight) for x in (layer.down, layer.scale * layer.up))
        if isinstance(layer.module, torch.nn.Conv2d):
            down, up = down.view(len(down), *weight.shape[1:]), up[..., None, None]

        def add(module: torch.nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> torch.Tensor:
            if not self.active:
                return out
            if isinstance(module, torch.nn.Conv2d):
                inner = F.conv2d(args[0], down, None, module.stride, module.padding, module.dilation)
                return out + F.conv2d(inner, up)
            return out + F.linear(F.linear(args[0], down), up)

        return add


@dataclass(frozen=True)
class _Layer:
    """One layer of a LoRA and where it goes; both halves float32 and flat."""

    stem: str
    module: Any
    down: torch.Tensor
    up: torch.Tensor
    scale: float


def _layers(unet: torch.nn.Module, lora: Mapping[str, torch.Tensor], source: str) -> list[_Layer]:
    """A LoRA's layers that this UNet has.

    Raises:
        CheckpointError: if there is none, or one does not fit.
    """
    names = {}
    for name, module in unet.named_modules():
        if hasattr(module, "weight"):
            names[PREFIX + name.replace(".", "_")] = module
            with suppress(CheckpointError):
                names[PREFIX + KeyMap().to_ldm(name).replace(".", "_")] = module
    stems = {k.rsplit(".lora_down", 1)[0] for k in lora if k.endswith(".lora_down.weight")}
    found = sorted(stems & names.keys())
    if not found:
        raise CheckpointError(f"{source} changes no layer of this UNet: its keys are {name_some(lora)}")
    layers = []
    for stem in found:
        try:
            down, up = lora[f"{stem}.lora_down.weight"].float(), lora[f"{stem}.lora_up.weight"].float()
        except KeyError as e:
            raise CheckpointError(f"{source} is incomplete: it lacks {e.args[0]}") from None
        if down.dim() < 2 or up.dim() < 2 or not len(down) == up.flatten(1).shape[1] > 0:
            raise CheckpointError(
                f"{source}: the halves of {stem} do not fit: {tuple(down.shape)} and {tuple(up.shape)}"
            )
        down, up, weight = down.flatten(1), up.flatten(1), names[stem].weight
        if len(up) != weight.shape[0] or len(up) * down.shape[1] != weight.numel():
            raise CheckpointError(f"{source}: {stem} does not fit a weight of shape {tuple(weight.shape)}")
        scale = float(lora.get(f"{stem}.alpha", torch.tensor(float(len(down))))) / len(down)
        layers.append(_Layer(stem, names[stem], down, up, scale))
    return layers
