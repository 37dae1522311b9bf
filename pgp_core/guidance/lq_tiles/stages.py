"""A network as a chain of stages, so that something larger than memory can be taken through it piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

#: ``norm(layer, x)``: how a stage has a GroupNorm applied.
Norm = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]


def own(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A GroupNorm as it is: with the statistics of what it is given."""
    normed: torch.Tensor = layer(x)
    return normed


@dataclass(frozen=True)
class Stage:
    """Layers that are run together on a piece.

    Its GroupNorms stand where sizes are still those of the input.

    Attributes:
        run: ``(x, norm)`` to the result; ``(B, C, h, w)`` to ``(B, C', h / stride, w / stride)``.
        channels: the most that a map of its has.
        halo: how many positions its convolutions see beyond a piece.
        stride: positions per position of the result, 1 or 2.
        first: the GroupNorm that its input goes through before all else, if any.
        attention: the layer that the stage is, if it is an attention over all positions: with ``group_norm``,
            ``context`` and ``answer`` as :class:`..lq_encoder._Attention` has them.
    """

    run: Callable[[torch.Tensor, Norm], torch.Tensor]
    channels: int
    halo: int
    stride: int = 1
    first: torch.nn.Module | None = None
    attention: Any = None


def reach(*modules: torch.nn.Module) -> int:
    """:attr:`Stage.halo` of convolutions in a row: half of each kernel; 1x1 ones beside them see nothing more."""
    return sum(
        size[0] // 2 for module in modules for m in module.modules() if (size := getattr(m, "kernel_size", None))
    )
