"""Spectral norm (Miyato et al., 2018) by PyTorch's own parametrization, with one power iteration a step.

PyTorch iterates in every forward pass. Here weights are the same for all that a step looks at, so that two processes
train as one does with twice the accumulation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm


def spectral(conv: torch.nn.Module) -> torch.nn.Module:
    """The layer with its weight, as a matrix of outputs by the rest, divided by its largest singular value."""
    return spectral_norm(conv)


class Spectral(torch.nn.Module):
    """A module whose layers are :func:`spectral`, some of them. It stays in evaluation, where nothing iterates."""

    def train(self, mode: bool = True) -> Spectral:
        """Stays in evaluation."""
        return super().train(False)

    @torch.no_grad()
    def refresh(self) -> None:
        """One power iteration for each weight: its singular vectors follow what training changed."""
        for layer in self._layers():
            for norm in layer.parametrizations.weight:
                norm.training = True
            _ = layer.weight
            for norm in layer.parametrizations.weight:
                norm.training = False

    @contextmanager
    def weights(self) -> Iterator[None]:
        """For a ``with`` block: every weight divided once, in its own precision whatever the autocast."""
        with parametrize.cached():
            for layer in self._layers():
                with torch.autocast(layer.parametrizations.weight.original.device.type, enabled=False):
                    _ = layer.weight
            yield

    def _layers(self) -> list[Any]:
        return [m for m in self.modules() if parametrize.is_parametrized(m, "weight")]
