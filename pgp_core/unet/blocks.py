"""The transformer blocks of a live UNet, diffusers' or ComfyUI's, full or pruned."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import CheckpointError
from .topology import KeyMap, is_stack, scheme_of, stack_order

_STACK = ".transformer_blocks"


class GappedList(torch.nn.ModuleList):
    """Blocks by their original numbers: ``blocks[7]`` is block 7, whichever of those before it were removed."""

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, int):
            return super().__getitem__(index)
        if index < 0:
            return list(self._modules.values())[index]
        if str(index) not in self._modules:
            raise IndexError(f"block {index} was removed by a plan")
        return self._modules[str(index)]


def stacks_in(unet: torch.nn.Module) -> dict[str, torch.nn.ModuleList]:
    """Transformer stacks by diffusers' names, in running order; none where it has none.

    Raises:
        CheckpointError: if they have other names than an SDXL-shaped UNet's.
    """
    modules = dict(unet.named_modules())
    lists = {name: m for name, m in modules.items() if name.endswith(_STACK) and isinstance(m, torch.nn.ModuleList)}
    if not lists:
        return {}
    # As their weights begin. Names that LoRAs bring along say nothing of the UNet.
    beginnings = [f"{name}." for name in modules if ".lora_" not in name]
    names = KeyMap.of(beginnings) if scheme_of(beginnings) == "ldm" else None
    found: dict[str, torch.nn.ModuleList] = {}
    for name, blocks in lists.items():
        stack = name.removesuffix(_STACK)
        stack = names.to_diffusers(stack) if names else stack
        if not is_stack(stack):
            raise CheckpointError(f"{name} is no transformer stack of an SDXL-shaped UNet")
        found[stack] = blocks
    return {stack: found[stack] for stack in sorted(found, key=stack_order)}


def numbers_in(blocks: torch.nn.ModuleList) -> tuple[int, ...]:
    """The numbers that the blocks of a stack had before any were removed."""
    return tuple(int(name) for name in blocks._modules)
