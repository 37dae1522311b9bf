"""Widths of an SDXL-shaped UNet, beside its topology, independent of any backbone."""

from __future__ import annotations

from dataclasses import dataclass

from .topology import Topology


@dataclass(frozen=True)
class UNetShape:
    """Shape of an SDXL-shaped UNet, beyond what its topology says.

    Attributes:
        topology: transformer stacks before pruning, and the resnets of each level and of the middle.
        latent_channels: channels in and out.
        channels: per level; the first is ``model_channels`` in ComfyUI's words.
        head_dim: channels per attention head.
        context_dim: width of the conditioning tokens.
        pooled_dim: width of the pooled conditioning; six sinusoidal sizes of 256 are added to it.
    """

    topology: Topology
    latent_channels: int
    channels: tuple[int, int, int]
    head_dim: int
    context_dim: int
    pooled_dim: int

    @property
    def adm_dim(self) -> int:
        """Width of the added embedding's input: pooled plus 6 x 256."""
        return self.pooled_dim + 6 * 256
