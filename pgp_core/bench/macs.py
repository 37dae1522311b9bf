"""Multiply-accumulates of a run, counted as it runs.

What counts is what :mod:`pgp_core.unet.costs` counts by formula: convolutions, linear layers, and attention's own two
products. Norms, activations, additions, resampling and Fourier transforms count nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop

#: Under which what ran outside of every part is counted.
ELSEWHERE = "elsewhere"

_aten = torch.ops.aten
_CONVOLUTIONS = {_aten.convolution, _aten._convolution, _aten.cudnn_convolution, _aten._slow_conv2d_forward}
#: A product of matrices may be a linear layer's in any of these, and attention's in the last two.
_MATRICES, _BATCHES = {_aten.mm, _aten.addmm}, {_aten.bmm, _aten.baddbmm}


def _attention(query: Any, key: Any, value: Any, *_args: Any, out_val: Any = None, **_more: Any) -> int:
    return int(sdpa_flop(query.shape, key.shape, value.shape))


#: PyTorch's own, which counts floating-point operations, two for each multiply-accumulate.
_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    # What the CPU has, which PyTorch's list lacks.
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_fused_attention_overrideable: _attention,
}


@dataclass
class Macs:
    """Plain numbers.

    Attributes:
        dense: of convolutions and linear layers, which is what tables of the field mostly count.
        attention: of attention's own products.
    """

    dense: int = 0
    attention: int = 0

    @property
    def total(self) -> int:
        """Both."""
        return self.dense + self.attention


@dataclass
class Counted:
    """What a run took.

    Attributes:
        parts: by the names of parts.
        inside: part to its direct children's names to what they took of it.
        calls: how often each part was called as a whole.
    """

    parts: dict[str, Macs] = field(default_factory=dict)
    inside: dict[str, dict[str, Macs]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def add(self, part: str, child: str, count: int, dense: bool) -> None:
        """Count a product."""
        of_child = self.inside.setdefault(part, {}).setdefault(child, Macs())
        for macs in (self.parts.setdefault(part, Macs()), of_child):
            if dense:
                macs.dense += count
            else:
                macs.attention += count


class Counter(TorchDispatchMode):
    """Counts what runs inside ``with``, on any device, on meta too.

    Args:
        parts: of a model by name. What runs inside a module belongs to the innermost part that it is of, so guidance
            that is hooked into a UNet is the guidance's.
    """

    def __init__(self, parts: Mapping[str, torch.nn.Module]):
        super().__init__()
        self.parts = parts
        self.counted = Counted(calls=dict.fromkeys(parts, 0))
        self._inside: list[tuple[str, str, torch.nn.Module]] = []
        self._last = (ELSEWHERE, "")
        self._hooks = ExitStack()
        self._depth = 0

    def __enter__(self) -> Counter:
        # PyTorch enters the mode again for each operation that it takes apart.
        if not self._depth:
            for name, part in self.parts.items():
                for path, module in part.named_modules():
                    self._watch(name, path, module)
        self._depth += 1
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._depth -= 1
        super().__exit__(*error)
        if not self._depth:
            self._hooks.close()

    def _watch(self, part: str, path: str, module: torch.nn.Module) -> None:
        child = path.partition(".")[0]

        def begins(*_: Any) -> None:
            self._inside.append((part, child, module))
            if not path:
                self.counted.calls[part] += 1

        def ends(*_: Any) -> None:
            self._last = self._inside.pop()[:2]

        before = module.register_forward_pre_hook(begins, prepend=True)
        # After one that raises too: sampling ends some calls of a UNet that way.
        after = module.register_forward_hook(ends, always_call=True)
        self._hooks.callback(before.remove)
        self._hooks.callback(after.remove)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = func._overloadpacket
        if kind not in _FORMULAS and func is not torch.ops.prim.device.default:
            # Without a gradient, layers arrive whole.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if kind in _FORMULAS:
            self._count(kind, _FORMULAS[kind](*args, **kwargs, out_val=result) // 2)
        return result

    def _count(self, kind: Any, macs: int) -> None:
        part, child, module = self._inside[-1] if self._inside else (ELSEWHERE, "", None)
        layer = isinstance(module, (torch.nn.Linear, torch.nn.modules.conv._ConvNd))
        dense = kind in _CONVOLUTIONS or kind in _MATRICES or (kind in _BATCHES and layer)
        if not self._inside and not dense:
            # Attention over tiles takes a module apart: its products follow its queries' layer.
            part, child = self._last
        self.counted.add(part, child, int(macs), dense)
