"""Moving average of what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class EMA:
    """Exponential moving average of a module's trainable parameters, warmed up as in DDPM.

    The effective decay is ``min(decay, (1 + n) / (10 + n))`` after n updates.

    Args:
        device: where the average is kept, by default each parameter's own.
    """

    def __init__(self, module: torch.nn.Module, decay: float = 0.999, device: str | None = None):
        self.decay = decay
        self.updates = 0
        self.shadow = {
            n: p.detach().to(device or p.device, copy=True) for n, p in module.named_parameters() if p.requires_grad
        }

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        """Move the average towards the module's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        names, live = zip(*self._live(module), strict=True)
        shadow = [self.shadow[n] for n in names]
        torch._foreach_lerp_(shadow, [p.detach().to(s.device) for p, s in zip(live, shadow, strict=True)], 1 - decay)

    @contextmanager
    def in_place(self, module: torch.nn.Module) -> Iterator[None]:
        """Give the module the averaged weights, and eval mode, for the duration of a ``with`` block."""
        training = module.training
        self._swap(module)
        module.eval()
        try:
            yield
        finally:
            self._swap(module)
            module.train(training)

    @torch.no_grad()
    def _swap(self, module: torch.nn.Module) -> None:
        for name, p in self._live(module):
            mine = self.shadow[name].to(p.device, copy=True)
            self.shadow[name].copy_(p)
            p.copy_(mine)

    def _live(self, module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
        return ((n, p) for n, p in module.named_parameters() if n in self.shadow)
