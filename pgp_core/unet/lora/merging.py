"""A LoRA in a UNet's weights, or beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from ...errors import CheckpointError
from ...progress import Say
from ..prediction import Predict
from .kinds import Matrices
from .layers import Layer
from .reading import LoRA, names_of, read


@torch.no_grad()
def merge(
    unet: torch.nn.Module,
    lora: LoRA | Mapping[str, torch.Tensor],
    strength: float = 1.0,
    source: str = "LoRA",
    say: Say | None = None,
) -> int:
    """Apply a LoRA to a UNet's weights, in place: a plain one adds ``strength * alpha / rank * up @ down``.

    Layers of blocks that a plan removed are passed over.

    Args:
        lora: or a file's tensors, see :func:`read`.
        say: told in one line of each kind of layer that is left out.

    Returns:
        how many layers it changed.

    Raises:
        CheckpointError: if no layer fits, or a layer's shape does not; the UNet is then unchanged.
    """
    lora = lora if isinstance(lora, LoRA) else read(lora, source, names=names_of(unet))
    fitted = lora.fitted(unet)
    for _, module, layer in fitted:
        change = layer.change(module.weight, strength)
        if change is not None:
            module.weight.copy_(module.weight.float() + change)
        if layer.bias is not None:
            module.bias.copy_(module.bias.float() + strength * layer.bias.to(module.bias.device).float().flatten())
    _tell(lora, fitted, say)
    return len(fitted)


class Beside:
    """A LoRA that stands beside a UNet's weights instead of in them, so that it can be left out.

    Its layers add to what the UNet's own give: the same as merged into the weights as they are now, up to rounding.
    Of a plain LoRA only its two matrices are kept, of every other kind a change as large as the weight.

    Attributes:
        layers: how many layers it has here; of blocks that a plan removed there are none.
        active: whether it acts.

    Raises:
        CheckpointError: if no layer fits, or one does not, or is of a module that is neither linear, nor a
            convolution, nor a norm.
    """

    @torch.no_grad()
    def __init__(
        self,
        unet: torch.nn.Module,
        lora: LoRA | Mapping[str, torch.Tensor],
        source: str = "LoRA",
        say: Say | None = None,
    ):
        self.active = True
        lora = lora if isinstance(lora, LoRA) else read(lora, source, names=names_of(unet))
        fitted = lora.fitted(unet)
        self.layers = len(fitted)
        odd = [layer for _, module, layer in fitted if not isinstance(module, tuple(_ADDED))]
        if odd:
            raise CheckpointError(
                f"{lora.source}: {odd[0].stem} is of a module that no LoRA can stand beside: merge it"
            )
        for _, module, layer in fitted:
            module.register_forward_hook(self._hook(module, layer))
        _tell(lora, fitted, say)

    def without(self, predict: Predict) -> Predict:
        """A prediction of the same UNet without this LoRA."""

        def bare(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.active = False
            try:
                return predict(x, t)
            finally:
                self.active = True

        return bare

    def _hook(self, module: Any, layer: Layer) -> Callable[[Any, tuple[Any, ...], torch.Tensor], torch.Tensor]:
        added = _added(module, layer)

        def add(_module: Any, args: tuple[Any, ...], out: torch.Tensor) -> torch.Tensor:
            return out + added(args[0]) if self.active else out

        return add


def _added(module: Any, layer: Layer) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a layer adds to a module's output, as a function of its input."""
    weight = module.weight
    bias = None if layer.bias is None else layer.bias.to(weight).flatten()
    plain = isinstance(layer.kind, Matrices) and layer.kind.mid is None and layer.magnitude is None
    if plain and isinstance(layer.kind, Matrices) and weight.dim() > 1:
        down, up = (x.to(weight) for x in (layer.kind.down, layer.kind.scale * layer.kind.up.float()))
        if isinstance(module, torch.nn.Conv2d):
            down, up = down.view(len(down), *weight.shape[1:]), up[..., None, None]
            return lambda x: F.conv2d(_conv(module, x, down, None), up, bias)
        return lambda x: F.linear(F.linear(x, down), up, bias)
    change = layer.change(weight)
    # A bias alone needs no product, but its shape.
    by = next(f for kind, f in _ADDED.items() if isinstance(module, kind))
    whole = torch.zeros_like(weight) if change is None else change.to(weight)
    return lambda x: by(module, x, whole, bias)


def _conv(module: torch.nn.Conv2d, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
    return F.conv2d(x, w, b, module.stride, module.padding, module.dilation)


#: A module's output, linear in weight and bias, for others than its own.
_ADDED: dict[type[torch.nn.Module], Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]] = {
    torch.nn.Linear: lambda _, x, w, b: F.linear(x, w, b),
    torch.nn.Conv2d: _conv,
    torch.nn.GroupNorm: lambda m, x, w, b: F.group_norm(x, m.num_groups, w, b, m.eps),
    torch.nn.LayerNorm: lambda m, x, w, b: F.layer_norm(x, m.normalized_shape, w, b, m.eps),
}


def _tell(lora: LoRA, fitted: list[tuple[str, Any, Layer]], say: Say | None) -> None:
    if say is not None:
        for line in lora.left_out(n for n, _, _ in fitted):
            say(line)
