"""Names in an SDXL-shaped UNet: its transformer stacks, their blocks, and both naming schemes.

One UNet, two spellings. diffusers says ``down_blocks.1.attentions.0.transformer_blocks.3.attn1.to_q``,
ComfyUI (the LDM scheme) says ``input_blocks.4.1.transformer_blocks.3.attn1.to_q``. Plans, reports and
messages use diffusers' names. The map is a rule, not a table, so it holds for any number of levels, any
number of resnets a level, and stacks whose block numbers have gaps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..errors import CheckpointError, name_some
from ..files.what_it_is import kind_of

Scheme = Literal["diffusers", "ldm"]

_STACK = re.compile(r"(down_blocks\.[0-9]{1,3}|mid_block|up_blocks\.[0-9]{1,3})\.attentions\.[0-9]{1,3}")
_BLOCK = re.compile(r"^(?P<stack>.+)\.transformer_blocks\.(?P<number>\d{1,4})\.")

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_FIXED = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_RESNET_LDM = {v: k for k, v in _RESNET.items()}
_FIXED_LDM = {v: k for k, v in _FIXED.items()}


def scheme_of(keys: Iterable[str]) -> Scheme:
    """Which spelling a UNet's keys (without prefix) have.

    Raises:
        CheckpointError: if they are neither; says so for the common wrong files.
    """
    keys = set(keys)
    if any(k.startswith("lora_") or ".lora_" in k for k in keys):
        raise CheckpointError("this file holds a LoRA, no UNet: load the model, then the LoRA")
    if any(k.startswith("input_blocks.") for k in keys):
        return "ldm"
    if any(k.startswith("down_blocks.") for k in keys):
        return "diffusers"
    kind = kind_of(keys)
    if kind is not None:
        raise CheckpointError(f"this file holds {kind.what}, no UNet: {kind.advice}")
    raise CheckpointError(f"this file holds no UNet: its keys are {name_some(keys)}")


@dataclass(frozen=True)
class KeyMap:
    """diffusers <-> LDM names for a UNet with ``resnets`` resnets in every encoder level.

    Both directions accept parameter names and module names, with or without block numbers.
    """

    resnets: int = 2

    @classmethod
    def of(cls, keys: Iterable[str]) -> KeyMap:
        """Read the number of resnets a level from a UNet's keys, or its modules' names, in either scheme."""
        keys = set(keys)
        if scheme_of(keys) == "diffusers":
            numbers = {int(m[1]) for k in keys if (m := re.match(r"down_blocks\.0\.resnets\.(\d{1,4})(\.|$)", k))}
            if not numbers:
                raise CheckpointError("this UNet has no down_blocks.0.resnets: it is not SDXL-shaped")
            return cls(max(numbers) + 1)
        downs = {int(m[1]) for k in keys if (m := re.match(r"input_blocks\.(\d{1,4})\.0\.op(\.|$)", k))}
        if not downs:
            raise CheckpointError("this UNet has no downsampler (input_blocks.N.0.op): it is not SDXL-shaped")
        return cls(min(downs) - 1)

    def to_ldm(self, name: str) -> str:
        """LDM spelling of a diffusers name.

        Raises:
            CheckpointError: if the name belongs to no SDXL-shaped UNet.
        """
        n = self.resnets
        for head, ldm in _FIXED.items():
            if name == head or name.startswith(head + "."):
                return ldm + self._inner(name[len(head) :], _RESNET if ".resnets." in head else {})
        m = re.match(
            r"(down|up)_blocks\.(\d{1,4})\.(resnets|attentions|downsamplers|upsamplers)\.(\d{1,4})(\..*)?$", name
        )
        if m:
            side, level, kind, j, tail = m[1], int(m[2]), m[3], int(m[4]), m[5] or ""
            if j >= (n + (side == "up") if kind in ("resnets", "attentions") else 1):
                raise CheckpointError(f"{name} is no name of an SDXL-shaped UNet in diffusers' scheme")
            base = (
                f"input_blocks.{level * (n + 1) + j + 1}" if side == "down" else f"output_blocks.{level * (n + 1) + j}"
            )
            if kind == "resnets":
                return f"{base}.0" + self._inner(tail, _RESNET)
            if kind == "attentions":
                return f"{base}.1{tail}"
            if kind == "downsamplers" and side == "down":
                return f"input_blocks.{(level + 1) * (n + 1)}.0" + re.sub(r"^\.conv\b", ".op", tail)
            if kind == "upsamplers" and side == "up":
                return f"output_blocks.{level * (n + 1) + n}.2{tail}"
        raise CheckpointError(f"{name} is no name of an SDXL-shaped UNet in diffusers' scheme")

    def to_diffusers(self, name: str) -> str:
        """diffusers spelling of an LDM name; the inverse of :meth:`to_ldm`.

        Raises:
            CheckpointError: if the name belongs to no SDXL-shaped UNet.
        """
        n = self.resnets
        for head, diffusers in _FIXED_LDM.items():
            if name == head or name.startswith(head + "."):
                inner = _RESNET_LDM if ".resnets." in diffusers else {}
                return diffusers + self._inner(name[len(head) :], inner)
        m = re.match(r"(input|output)_blocks\.(\d{1,4})\.(\d{1,4})(\..*)?$", name)
        if m and (m[1] == "output" or int(m[2]) > 0):
            side, index, part, tail = m[1], int(m[2]), int(m[3]), m[4] or ""
            if side == "input":
                level, j = divmod(index - 1, n + 1)
                stem = f"down_blocks.{level}"
                if j == n:
                    if part == 0 and (not tail or re.match(r"\.op(\.|$)", tail)):
                        return f"{stem}.downsamplers.0" + re.sub(r"^\.op\b", ".conv", tail)
                    part = -1
            else:
                level, j = divmod(index, n + 1)
                stem = f"up_blocks.{level}"
                # The upsampler follows the attention where there is one and the resnet where there is none.
                if j == n and (part == 2 or (part == 1 and tail.startswith(".conv"))):
                    return f"{stem}.upsamplers.0{tail}"
            if part == 0:
                return f"{stem}.resnets.{j}" + self._inner(tail, _RESNET_LDM)
            if part == 1:
                return f"{stem}.attentions.{j}{tail}"
        raise CheckpointError(f"{name} is no name of an SDXL-shaped UNet in the LDM scheme")

    @staticmethod
    def _inner(tail: str, names: dict[str, str]) -> str:
        """Rename the first component below a resnet (``.conv1.weight`` -> ``.in_layers.2.weight``)."""
        for old, new in names.items():
            if tail == "." + old or tail.startswith(f".{old}."):
                return "." + new + tail[len(old) + 1 :]
        return tail

    def block_of_site(self, site: str) -> tuple[str, int]:
        """ComfyUI's ``transformer_options["block"]`` for a place in the encoder.

        Args:
            site: diffusers module name after which features are taken, such as ``conv_in`` or
                ``down_blocks.0.downsamplers.0``.

        Returns:
            ``("input", index)``.

        Raises:
            CheckpointError: if the site does not end an encoder block.
        """
        m = re.match(r"input_blocks\.(\d+)\.", self.to_ldm(site) + ".")
        if not m:
            raise CheckpointError(f"{site} is not in the encoder; guidance sites are conv_in and down_blocks modules")
        return "input", int(m[1])

    def halvings_before(self, site: str) -> int:
        """How often the latent's size has been halved where an encoder module ends: 0 at ``conv_in``."""
        m = re.match(r"down_blocks\.(\d+)\.(downsamplers)?", site)
        return int(m[1]) + bool(m[2]) if m else 0


def is_stack(name: str) -> bool:
    """Whether it is how diffusers would name a transformer stack of an SDXL-shaped UNet."""
    return bool(_STACK.fullmatch(name))


def stack_order(stack: str) -> tuple[int, int, int]:
    """Sort key that puts stacks in the order in which the UNet runs them."""
    side = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    numbers = [int(x) for x in re.findall(r"\d+", stack)]
    level = numbers[0] if len(numbers) > 1 else 0
    return side[stack.split(".")[0]], level, numbers[-1]


def stacks_of(keys: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The transformer stacks of a UNet and the numbers of the blocks that each has.

    Args:
        keys: a UNet's keys without prefix, in either scheme. Numbers may have gaps; a stack whose blocks
            are all gone is still there while its projections are.

    Returns:
        diffusers' stack names, in running order, to ascending block numbers.
    """
    keys = set(keys)
    names = KeyMap.of(keys)
    ldm = scheme_of(keys) == "ldm"
    found: dict[str, set[int]] = {}
    for key in keys:
        m = _BLOCK.match(key)
        if m:
            stack, number = m["stack"], int(m["number"])
        elif key.endswith(".proj_in.weight"):
            stack, number = key[: -len(".proj_in.weight")], None
        else:
            continue
        if ldm:
            stack = names.to_diffusers(stack)
        if not is_stack(stack):
            raise CheckpointError(f"{key} is in no transformer stack of an SDXL-shaped UNet")
        blocks = found.setdefault(stack, set())
        if number is not None:
            blocks.add(number)
    return {stack: tuple(sorted(found[stack])) for stack in sorted(found, key=stack_order)}


def split_block(key: str) -> tuple[str, int] | None:
    """``(stack, block number)`` of a key inside a transformer block, in the key's own scheme, or None."""
    m = _BLOCK.match(key)
    return (m["stack"], int(m["number"])) if m else None


@dataclass(frozen=True)
class Topology:
    """An unpruned UNet family: how its levels are built, before pruning and whatever its widths.

    Attributes:
        name: what plans and files call it.
        depths: transformer blocks of each stack, by diffusers' names in running order.
        resnets: in each level of the encoder; the decoder's have one more.
        middle: resnets in the middle: 2 around its transformer stack, 1 where it has no stack, 0 where the encoder's
            end is the decoder's beginning.
    """

    name: str
    depths: dict[str, int]
    resnets: int = 2
    middle: int = 2

    @property
    def names(self) -> KeyMap:
        """Its names in both schemes."""
        return KeyMap(self.resnets)

    def stage(self, stack: str) -> Literal["encoder", "bottleneck", "decoder"]:
        """The part of the UNet that a stack belongs to, in the paper's words."""
        side = stack.split(".")[0]
        return "encoder" if side == "down_blocks" else "bottleneck" if side == "mid_block" else "decoder"

    def in_level(self, side: Literal["down", "up"], level: int) -> tuple[int, ...]:
        """Depths of the stacks in one level of a side, ``()`` where it has none; levels count as diffusers' do."""
        resnets = self.resnets + (side == "up")
        found = (self.depths.get(f"{side}_blocks.{level}.attentions.{j}") for j in range(resnets))
        return tuple(depth for depth in found if depth is not None)
