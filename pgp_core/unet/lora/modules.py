"""The modules of SDXL-shaped UNets that a LoRA may have layers for, under every spelling of their names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from ..known import SDXL_KIND
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


def all_modules(resnets: int = 2) -> Iterator[str]:
    """diffusers' names of every module with a weight in the largest unpruned UNet of SDXL's kind.

    Others have a part of them: what is distilled from SDXL has no module that SDXL does not have.

    Args:
        resnets: in each level of the encoder, by which the levels' names differ in LDM's scheme.
    """
    yield from _OUTSIDE
    levels = [
        f"{side}_blocks.{i}.resnets.{j}"
        for side, n in (("down", resnets), ("up", resnets + 1))
        for i in range(3)
        for j in range(n)
    ]
    for resnet in (*levels, "mid_block.resnets.0", "mid_block.resnets.1"):
        yield from (f"{resnet}.{n}" for n in _RESNET)
    depths: dict[str, int] = {}
    for topology in SDXL_KIND:
        if topology.resnets == resnets:
            depths |= {s: max(d, depths.get(s, 0)) for s, d in topology.depths.items()}
    for stack, depth in depths.items():
        yield from (f"{stack}.{n}" for n in _PROJECTIONS)
        yield from (f"{stack}.transformer_blocks.{i}.{n}" for i in range(depth) for n in _BLOCK)


def flat(name: str) -> str:
    """A module's name as trainers write it, with underscores."""
    return name.replace(".", "_")


@cache
def by_flat_name(names: KeyMap = KeyMap()) -> dict[str, str]:  # noqa: B008 - it is frozen
    """diffusers' names by flat ones: diffusers', LDM's, and ``to_out`` for ``to_out.0`` (old attention processors).

    diffusers' names are known of every UNet, so that a LoRA of a larger one is told by its own; LDM's mean other
    modules in UNets with other numbers of residual blocks.

    Args:
        names: of the UNet that the LoRA is for.
    """
    found: dict[str, str] = {}

    def add(spelling: str, module: str) -> None:
        found[flat(spelling)] = module
        found[flat(spelling.removesuffix(".0") if spelling.endswith(".to_out.0") else spelling)] = module

    for resnets in {t.resnets for t in SDXL_KIND}:
        for module in all_modules(resnets):
            add(module, module)
    for module in all_modules(names.resnets):
        add(names.to_ldm(module), module)
    return found
