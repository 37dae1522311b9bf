"""Whether ComfyUI's own loader reads a UNet file as what it is.

Found by trying ComfyUI 0.33; ``tests/comfyui/test_loras.py`` tries it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .inspect import UNetInfo
from .known import SDXL_KIND, SHAPES
from .topology import Topology

LOADER, OURS = "Load Diffusion Model", "Load PGP-DiffSR Model"


@dataclass(frozen=True)
class CoreLoading:
    """What core's *Load Diffusion Model* makes of a file.

    Attributes:
        loads: whether it reads it rightly.
        why: else, what is in its way.
        ours: whether this pack's loader reads it.
    """

    loads: bool
    why: str = ""
    ours: bool = True

    def __str__(self) -> str:
        """One sentence for people."""
        if self.loads:
            also = f" as well as {OURS}" if self.ours else f"; {OURS} refuses renumbered files"
            return f"ComfyUI's own {LOADER} reads this file{also}."
        do = f"use {OURS}" if self.ours else "use the file that it was made from, with its numbers"
        return f"ComfyUI's own {LOADER} does not read this file: {self.why}. In ComfyUI {do}."


def loads_in_core(info: UNetInfo, renumbered: bool = False) -> CoreLoading:
    """Whether core's own loader reads a file of this UNet, in LDM names.

    Core counts a stack's blocks from 0 until one is missing, and knows SDXL and those distilled from it by their width
    and by their encoder's depths; the rest it builds as it counts.

    Args:
        renumbered: whether the file's blocks are numbered from 0 without gaps.
    """

    def no(why: str) -> CoreLoading:
        return CoreLoading(False, why, not renumbered)

    shape, topology = info.shape, info.shape.topology
    if topology not in SDXL_KIND:
        return no(f"it knows no {topology.name}")
    like = SHAPES[topology.name]
    own = (shape.channels[0], shape.context_dim, shape.adm_dim, shape.latent_channels)
    if own != (like.channels[0], like.context_dim, like.adm_dim, like.latent_channels):
        return no("its UNet does not have SDXL's widths")
    if info.prediction not in ("epsilon", "v_prediction") or info.latent_std:
        return no(f"it would sample it as one that predicts epsilon, not {info.prediction}")
    if info.zero_snr and info.prediction != "v_prediction":
        return no("it would sample it with another noise schedule, not one of zero terminal SNR")
    stacks = {s: tuple(range(len(e.keep))) if renumbered else e.keep for s, e in info.plan.stacks.items()}
    for stack, kept in stacks.items():
        # Of the bottleneck it asks for no width.
        if kept and kept[0] != 0 and topology.stage(stack) != "bottleneck":
            return no(f"{stack} has no block 0, which ends in a KeyError there")
    counted = {s: next((i for i, n in enumerate(kept) if n != i), len(kept)) for s, kept in stacks.items()}
    if not any(_encoder(topology, counted) == _encoder(t, t.depths) for t in SDXL_KIND):
        cut = next(s for s in topology.depths if topology.stage(s) == "encoder" and counted[s] < topology.depths[s])
        depth = topology.depths[cut]
        return no(f"{cut} has {len(stacks[cut])} of {depth} blocks, and with another encoder it does not know SDXL")
    for stack, kept in stacks.items():
        if not kept and topology.stage(stack) == "decoder":
            return no(f"{stack} has no blocks, whose projections it would leave out")
        if counted[stack] < len(kept):
            gap = kept[counted[stack]]
            return no(f"the blocks of {stack} have gaps, and it would leave out those from {gap} on")
    return CoreLoading(True, ours=not renumbered)


def _encoder(topology: Topology, depths: Mapping[str, int]) -> dict[str, int]:
    """What core knows a UNet by: it counts one or two stacks a level."""
    return {s: d for s, d in depths.items() if topology.stage(s) == "encoder"}
