"""The modules of an SDXL-shaped UNet that a LoRA may have layers for, under every spelling of their names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from ..known import SDXL
from ..topology import KeyMap

_RESNET = ("norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut")
_PROJECTIONS = ("norm", "proj_in", "proj_out")
_BLOCK = (
    *(f"attn{i}.{n}" for i in (1, 2) for n in ("to_q", "to_k", "to_v", "to_out.0")),
    *("norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2"),
)
_OUTSIDE = (
    *("conv_in", "conv_norm_out", "conv_out"),
    *(f"{n}.linear_{i}" for n in ("time_embedding", "add_embedding") for i in (1, 2)),
    *(f"down_blocks.{i}.downsamplers.0.conv" for i in (0, 1)),
    *(f"up_blocks.{i}.upsamplers.0.conv" for i in (0, 1)),
)


def all_modules() -> Iterator[str]:
    """diffusers' names of every module with a weight in the unpruned SDXL UNet. Smaller ones have a part of them."""
    yield from _OUTSIDE
    resnets = [
        f"{side}_blocks.{i}.resnets.{j}" for side, n in (("down", 2), ("up", 3)) for i in range(3) for j in range(n)
    ]
    for resnet in (*resnets, "mid_block.resnets.0", "mid_block.resnets.1"):
        yield from (f"{resnet}.{n}" for n in _RESNET)
    for stack, depth in SDXL.depths.items():
        yield from (f"{stack}.{n}" for n in _PROJECTIONS)
        yield from (f"{stack}.transformer_blocks.{i}.{n}" for i in range(depth) for n in _BLOCK)


def flat(name: str) -> str:
    """A module's name as trainers write it, with underscores."""
    return name.replace(".", "_")


@cache
def by_flat_name() -> dict[str, str]:
    """diffusers' names by flat ones: diffusers', LDM's, and ``to_out`` for ``to_out.0`` (old attention processors)."""
    names, found = KeyMap(), {}
    for module in all_modules():
        for spelling in (module, names.to_ldm(module)):
            found[flat(spelling)] = module
            found[flat(spelling.removesuffix(".0") if spelling.endswith(".to_out.0") else spelling)] = module
    return found
