"""What a layer adds to a weight: plain LoRA and LoCon, LoHa, LoKr, a whole difference.

The arithmetic is LyCORIS', PEFT's and ComfyUI's. Everything is computed in float32, on the device asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

Parts = Mapping[str, torch.Tensor]


class Misfit(ValueError):  # noqa: N818 - named for what it says
    """Parts of one layer that do not go together; the message says which."""


class Kind(Protocol):
    """A change of a weight."""

    @property
    def rows(self) -> int:
        """Rows (output channels) of the weight that it is for."""
        ...

    @property
    def size(self) -> int:
        """How many numbers that weight has."""
        ...

    def delta(self, device: torch.device) -> torch.Tensor:
        """``rows`` x ``size / rows`` numbers, flat or not, float32."""
        ...


@dataclass(frozen=True)
class Matrices:
    """``scale * up @ down``; with a middle, ``scale * up @ mid @ down`` at each position of the kernel (LoCon).

    Attributes:
        down, up: flat; with a middle ``(rank, in)`` and ``(out, rank)``.
        mid: ``(rank, rank, kh, kw)``, or None.
    """

    down: torch.Tensor
    up: torch.Tensor
    mid: torch.Tensor | None
    scale: float

    @classmethod
    def of(cls, parts: Parts, scale: float) -> Matrices:
        """Raises Misfit where the ranks differ."""
        down, up, mid = parts["down"], parts["up"], parts.get("mid")
        fits = down.dim() >= 2 and up.dim() >= 2 and len(down) == up[:1].numel() > 0
        if fits and mid is not None:
            fits = mid.dim() == 4 and mid.shape[:2] == (len(down), len(down)) and down[0].numel() == down.shape[1]
        if not fits:
            raise Misfit(
                f"{tuple(down.shape)} and {tuple(up.shape)}" + (f", {tuple(mid.shape)}" if mid is not None else "")
            )
        return cls(down.flatten(1), up.flatten(1), mid, scale)

    @property
    def rows(self) -> int:
        return len(self.up)

    @property
    def size(self) -> int:
        kernel = 1 if self.mid is None else self.mid[0, 0].numel()
        return self.rows * self.down.shape[1] * kernel

    def delta(self, device: torch.device) -> torch.Tensor:
        down, up = self.down.to(device, torch.float32), self.up.to(device, torch.float32)
        if self.mid is not None:
            mid = self.mid.to(device, torch.float32)
            down = torch.einsum("rskl,si->rikl", mid, down).flatten(1)
        return (up @ down) * self.scale


@dataclass(frozen=True)
class Hadamard:
    """LoHa: ``scale * (w1_a @ w1_b) * (w2_a @ w2_b)``, each half with a middle where there is one."""

    halves: tuple[_Product, _Product]
    scale: float

    @classmethod
    def of(cls, parts: Parts, scale: float) -> Hadamard:
        """Raises Misfit where the halves differ."""
        one, two = (_Product.of(*(parts.get(f"hada_{n}") for n in (f"w{i}_a", f"w{i}_b", f"t{i}"))) for i in (1, 2))
        if one.shape != two.shape:
            raise Misfit(f"halves of {one.shape} and {two.shape}")
        return cls((one, two), scale)

    @property
    def rows(self) -> int:
        return self.halves[0].shape[0]

    @property
    def size(self) -> int:
        return math.prod(self.halves[0].shape)

    def delta(self, device: torch.device) -> torch.Tensor:
        return self.halves[0].made(device) * self.halves[1].made(device) * self.scale


@dataclass(frozen=True)
class Kronecker:
    """LoKr: ``scale * kron(w1, w2)``, either factor whole or a product."""

    w1: _Product
    w2: _Product
    scale: float

    @classmethod
    def of(cls, parts: Parts, scale: float) -> Kronecker:
        """Raises Misfit where a factor's parts do not go together."""
        w1, w2 = (
            _Product.of(*(parts.get(f"lokr_{n}") for n in (f"w{i}_a", f"w{i}_b", f"t{i}", f"w{i}"))) for i in (1, 2)
        )
        if len(w1.shape) != 2:
            raise Misfit(f"a first factor of {w1.shape}")
        return cls(w1, w2, scale)

    @property
    def rows(self) -> int:
        return self.w1.shape[0] * self.w2.shape[0]

    @property
    def size(self) -> int:
        return math.prod(self.w1.shape) * math.prod(self.w2.shape)

    def delta(self, device: torch.device) -> torch.Tensor:
        # PyTorch's kron takes no tensor whose axes lie in another order.
        one, two = self.w1.made(device).contiguous(), self.w2.made(device).contiguous()
        return torch.kron(one.reshape(one.shape + (1,) * (two.dim() - 2)), two) * self.scale


@dataclass(frozen=True)
class Difference:
    """A whole difference of a weight (``diff``), of any layer."""

    diff: torch.Tensor

    @property
    def rows(self) -> int:
        return len(self.diff) if self.diff.dim() else 0

    @property
    def size(self) -> int:
        return self.diff.numel()

    def delta(self, device: torch.device) -> torch.Tensor:
        return self.diff.to(device, torch.float32)


@dataclass(frozen=True)
class _Product:
    """A matrix or kernel: whole, ``a @ b``, or by Tucker's decomposition ``(rank, out)``, ``(rank, in)`` and a core."""

    a: torch.Tensor | None
    b: torch.Tensor | None
    core: torch.Tensor | None
    whole: torch.Tensor | None

    @classmethod
    def of(
        cls,
        a: torch.Tensor | None,
        b: torch.Tensor | None,
        core: torch.Tensor | None,
        whole: torch.Tensor | None = None,
    ) -> _Product:
        if whole is not None:
            if a is not None or b is not None or core is not None or whole.dim() < 2:
                raise Misfit(f"a factor of {tuple(whole.shape)}, whole and in parts")
            return cls(None, None, None, whole)
        if a is None or b is None or a.dim() != 2 or b.dim() != 2:
            raise Misfit("a factor that lacks a half or has another number of dimensions")
        if core is None:
            fits = a.shape[1] == b.shape[0] > 0
        else:
            fits = core.dim() == 4 and core.shape[0] == a.shape[0] > 0 and core.shape[1] == b.shape[0] > 0
        if not fits:
            raise Misfit(
                f"{tuple(a.shape)} and {tuple(b.shape)}" + (f", {tuple(core.shape)}" if core is not None else "")
            )
        return cls(a, b, core, None)

    @property
    def shape(self) -> tuple[int, ...]:
        if self.whole is not None:
            return tuple(self.whole.shape)
        assert self.a is not None and self.b is not None
        if self.core is None:
            return self.a.shape[0], self.b.shape[1]
        return self.a.shape[1], self.b.shape[1], *self.core.shape[2:]

    def made(self, device: torch.device) -> torch.Tensor:
        if self.whole is not None:
            return self.whole.to(device, torch.float32)
        assert self.a is not None and self.b is not None
        a, b = self.a.to(device, torch.float32), self.b.to(device, torch.float32)
        if self.core is None:
            return a @ b
        return torch.einsum("ijkl,jr,ip->prkl", self.core.to(device, torch.float32), b, a)
