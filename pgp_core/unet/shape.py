"""Shapes of the SDXL-shaped UNets that this package knows, independent of any backbone."""

from __future__ import annotations

from dataclasses import dataclass

from .topology import NANO, SDXL, Topology


@dataclass(frozen=True)
class UNetShape:
    """Shape of an SDXL-shaped UNet, beyond what its topology says.

    Attributes:
        topology: transformer stacks before pruning.
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


SDXL_SHAPE = UNetShape(SDXL, 4, (320, 640, 1280), 64, 2048, 1280)
NANO_SHAPE = UNetShape(NANO, 48, (64, 64, 64), 32, 64, 64)

#: By the topology's name.
SHAPES = {s.topology.name: s for s in (SDXL_SHAPE, NANO_SHAPE)}
