"""Which of the known UNets a file's names and shapes are.

A pruned file has gaps in its block numbers, so the same names can come from several topologies. Which one it is, is
decided by the first of these that answers:

1. our own metadata, where the file has it and it is true;
2. a topology of which every block is there, and none besides: the file is whole;
3. the smallest topology with these stacks that has all the blocks: the file is pruned from it. SDXL's stacks, SSD-1B's
   and KOALA's differ, so this has a choice between SSD-1B and Vega alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import CheckpointError, name_some
from ..files.what_it_is import kind_of
from .known import SHAPES, TOPOLOGIES
from .shape import UNetShape
from .topology import KeyMap, Scheme, Topology

_Stacks = Mapping[str, tuple[int, ...]]
_Shapes = Mapping[str, tuple[int, ...]]


def latent_channels(bare: _Shapes, scheme: Scheme, names: KeyMap) -> int:
    """Channels of the latents that a UNet takes.

    Args:
        bare: a UNet's names, without prefix, to shapes.

    Raises:
        CheckpointError: if it takes others than the known UNets do. UNets of another kind are found before, see
            :func:`pgp_core.files.what_it_is.unet_kind`.
    """
    spell = names.to_ldm if scheme == "ldm" else str
    if any(k.startswith("time_embedding.cond_proj.") for k in bare):
        raise CheckpointError(
            "it is a latent consistency model that takes CFG's scale as an input (time_embedding.cond_proj), which no "
            "sampler here gives: use the model that it was made from, with its LCM LoRA"
        )
    inputs = _size(bare, spell("conv_in.weight"), 1)
    outputs = _size(bare, spell("conv_out.weight"), 0)
    if inputs != outputs or inputs not in {s.latent_channels for s in SHAPES.values()}:
        raise CheckpointError(f"its UNet has {inputs} input and {outputs} output channels; SDXL has 4 and 4")
    return inputs


def topology_of(stacks: _Stacks, resnets: int, channels: int, said: str | None = None) -> Topology:
    """The topology that a UNet has, or was pruned from.

    Args:
        stacks: as :func:`pgp_core.unet.topology.stacks_of` gives them.
        resnets: in each level of its encoder.
        channels: of its latents.
        said: the topology's name in our metadata.

    Raises:
        CheckpointError: if it is none of those that are known, or another than the metadata says.
    """
    if said is not None and said not in TOPOLOGIES:
        raise CheckpointError(f"it is pruned from {said}, which this release does not know: update")
    alike = [s.topology for s in SHAPES.values() if s.latent_channels == channels]
    stated = next((t for t in alike if t.name == said), None)
    if stated and not _wrong(stated, stacks, resnets):
        return stated
    found = _found(alike, stacks, resnets)
    if said is not None:
        raise CheckpointError(f"it is {found.name}, but the plan in its metadata is for {said}")
    return found


def _found(alike: list[Topology], stacks: _Stacks, resnets: int) -> Topology:
    whole = next((t for t in alike if t.resnets == resnets and _is_whole(t, stacks)), None)
    if whole:
        return whole
    nearest = min(alike, key=lambda t: (len(_wrong(t, stacks, resnets)), sum(t.depths.values())))
    if wrong := _wrong(nearest, stacks, resnets):
        raise CheckpointError(wrong[0])
    return nearest


def _is_whole(topology: Topology, stacks: _Stacks) -> bool:
    return {s: tuple(range(d)) for s, d in topology.depths.items()} == dict(stacks)


def _wrong(topology: Topology, stacks: _Stacks, resnets: int) -> list[str]:
    """Why a UNet has not this topology, one reason for each stack; empty if it may have."""
    name, depths = topology.name, topology.depths
    missing, foreign = [s for s in depths if s not in stacks], [s for s in stacks if s not in depths]
    if resnets != topology.resnets:
        reason = f"its UNet has {resnets} residual blocks a level, {name} has {topology.resnets}"
        return [reason] * (len(depths) + len(foreign) + 1)
    lacks = f"it is not shaped as {name}: it lacks the transformer stacks {name_some(missing)}"
    besides = f"it is not shaped as {name}: it has {name_some(foreign)} besides"
    deep = [s for s, d in depths.items() if any(b >= d for b in stacks.get(s, ()))]
    deeper = [f"its {s} has block {max(stacks[s])}; {name} has {depths[s]} blocks there" for s in deep]
    return [lacks] * len(missing) + [besides] * len(foreign) + deeper


def shape_of(bare: _Shapes, scheme: Scheme, names: KeyMap, topology: Topology) -> UNetShape:
    """Widths from the weights. What they do not say (channels a head) is the known UNet's.

    Raises:
        CheckpointError: if they are no widths of SDXL's kind.
    """
    spell = names.to_ldm if scheme == "ldm" else str
    like = SHAPES[topology.name]
    one, two, three = (_size(bare, spell(f"down_blocks.{i}.resnets.0.conv1.weight"), 0) for i in range(3))
    widths = (one, two, three)
    context = {v[1] for k, v in bare.items() if k.endswith(".attn2.to_k.weight") and len(v) == 2}
    if len(context) > 1:
        raise CheckpointError(f"its cross-attention takes tokens of several widths: {sorted(context)}")
    shape = replace(
        like,
        channels=widths,
        context_dim=context.pop() if context else like.context_dim,
        pooled_dim=_size(bare, spell("add_embedding.linear_1.weight"), 1) - 6 * 256,
    )
    # 32: the groups of GroupNorm.
    if shape.pooled_dim < 1 or any(w % shape.head_dim or w % 32 or w % widths[0] for w in widths):
        raise CheckpointError(f"its UNet has levels of {widths} channels, which is no width of SDXL's kind")
    return shape


def _size(bare: _Shapes, key: str, axis: int) -> int:
    found = bare.get(key)
    if found is None:
        kind = kind_of(bare)
        if kind is not None:
            raise CheckpointError(f"it holds {kind.what}, no UNet (it lacks {key}): {kind.advice}")
        raise CheckpointError(f"it lacks {key}, so it holds no whole SDXL-shaped UNet")
    if len(found) <= axis or not 1 <= found[axis] <= 65536:
        raise CheckpointError(f"{key} has the impossible shape {tuple(found)}")
    return int(found[axis])
