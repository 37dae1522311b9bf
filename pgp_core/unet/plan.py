"""Prune plans: which transformer blocks of an unpruned UNet stay. Pruning as data."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import PlanError, name_some
from ..files.json_format import check_format, read_json
from .known import TOPOLOGIES
from .topology import Topology, is_stack, stack_order

FORMAT = "pgp-diffsr/prune-plan"
VERSION = 1
PRESET_DIR = Path(__file__).parents[1] / "assets" / "plans"


@dataclass(frozen=True)
class StackPlan:
    """One transformer stack: ``depth`` blocks before pruning, of which the numbers in ``keep`` stay."""

    depth: int
    keep: tuple[int, ...]


@dataclass(frozen=True)
class PrunePlan:
    """Which blocks of each transformer stack stay; blocks keep their original numbers.

    Attributes:
        name: what people call it.
        topology: the kind of UNet that it was made for, by its name.
        stacks: diffusers' stack names, in running order.
        provenance: how it came about: method, report hash, thresholds.
    """

    name: str
    topology: str
    stacks: Mapping[str, StackPlan]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def keeps(self, stack: str, block: int) -> bool:
        """Whether a block stays; stacks that the plan does not mention stay whole."""
        entry = self.stacks.get(stack)
        return entry is None or block in entry.keep

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """Numbers of the blocks that stay, for each stack that the plan mentions."""
        return {stack: entry.keep for stack, entry in self.stacks.items()}

    @property
    def removed(self) -> int:
        """How many blocks the plan takes away."""
        return sum(s.depth - len(s.keep) for s in self.stacks.values())

    @classmethod
    def full(cls, topology: Topology, name: str = "full") -> PrunePlan:
        """The plan that keeps everything."""
        stacks = {k: StackPlan(d, tuple(range(d))) for k, d in topology.depths.items()}
        return cls(name, topology.name, stacks, {"method": "full"})

    # -- JSON ------------------------------------------------------------------------------------------

    @classmethod
    def from_json(cls, data: Any, source: str = "plan") -> PrunePlan:
        """Read and check a plan.

        Args:
            data: parsed JSON.
            source: what to call it in messages.

        Raises:
            PlanError: naming the stack and block that is wrong, and what to do.
        """
        data = check_format(data, FORMAT, VERSION, source, "prune plan", PlanError)
        for key in ("name", "topology"):
            if not isinstance(data.get(key), str) or not data[key]:
                raise PlanError(f'{source}: "{key}" is missing or no text')
        if not isinstance(data.get("stacks"), dict) or not data["stacks"]:
            raise PlanError(f'{source}: "stacks" is missing or empty')
        provenance = data.get("provenance", {})
        if not isinstance(provenance, dict):
            raise PlanError(f'{source}: "provenance" must be an object')
        stacks = {k: _read_stack(k, v, source) for k, v in data["stacks"].items()}
        plan = cls(
            data["name"],
            data["topology"],
            {k: stacks[k] for k in sorted(stacks, key=stack_order)},
            provenance,
        )
        known = TOPOLOGIES.get(plan.topology)
        if known:
            plan.check(known, source)
        return plan

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON data, version 1."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "topology": self.topology,
            "stacks": {k: {"depth": s.depth, "keep": list(s.keep)} for k, s in self.stacks.items()},
            "provenance": dict(self.provenance),
        }

    def dumps(self) -> str:
        """JSON text with one line a stack, as the presets are written."""
        data = self.to_json()
        stacks = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in data.pop("stacks").items())
        head = json.dumps(data, indent=2)
        return head.replace('  "provenance"', f'  "stacks": {{\n{stacks}\n  }},\n  "provenance"', 1) + "\n"

    def sha256(self) -> str:
        """Hash of :meth:`dumps`, by which other files name the plan."""
        return hashlib.sha256(self.dumps().encode()).hexdigest()

    # -- fitting a model -------------------------------------------------------------------------------

    def check(self, topology: Topology, source: str | None = None) -> None:
        """Check the plan against an unpruned family.

        Raises:
            PlanError: if a stack is unknown or has another depth.
        """
        what = source or f"plan {self.name}"
        self._check_depths({k: tuple(range(d)) for k, d in topology.depths.items()}, what, topology.name, exact=True)

    def check_model(self, stacks: Mapping[str, tuple[int, ...]], what: str = "the model") -> None:
        """Check that the plan can be applied to a model, which may be pruned already.

        Args:
            stacks: as :func:`pgp_core.unet.topology.stacks_of` returns them.

        Raises:
            PlanError: if the model lacks a stack or a block that the plan keeps, or has a block beyond the
                plan's depth.
        """
        self._check_depths(stacks, f"plan {self.name}", what, exact=False)

    def _check_depths(self, have: Mapping[str, tuple[int, ...]], plan: str, model: str, exact: bool) -> None:
        unknown = [k for k in self.stacks if k not in have]
        if unknown:
            raise PlanError(
                f"{plan} (for {self.topology}) does not fit {model}: no stack {name_some(unknown)}; "
                f"it has {name_some(have)}"
            )
        for stack, entry in self.stacks.items():
            blocks = have[stack]
            beyond = [b for b in blocks if b >= entry.depth]
            if beyond or (exact and len(blocks) != entry.depth):
                depth = max(blocks) + 1 if blocks else 0
                raise PlanError(
                    f"{plan} (for {self.topology}) does not fit {model}: {stack} has {depth} blocks there, "
                    f"the plan says {entry.depth}"
                )
            missing = [b for b in entry.keep if b not in blocks]
            if missing:
                raise PlanError(
                    f"{plan} keeps block {missing[0]} of {stack}, which {model} does not have (it has {list(blocks)}): "
                    "take a plan that cuts more, or an unpruned model"
                )


def _read_stack(stack: str, value: Any, source: str) -> StackPlan:
    if not is_stack(stack):
        raise PlanError(f"{source}: {stack!r} is no transformer stack (down_blocks.1.attentions.0 is one)")
    if not isinstance(value, dict) or "depth" not in value or "keep" not in value:
        raise PlanError(f'{source}: stack {stack} needs "depth" and "keep"')
    depth, keep = value["depth"], value["keep"]
    if not isinstance(depth, int) or isinstance(depth, bool) or not 0 <= depth <= 1000:
        raise PlanError(f"{source}: stack {stack} has depth {depth!r}, which is no sensible number of blocks")
    if not isinstance(keep, list) or any(not isinstance(b, int) or isinstance(b, bool) for b in keep):
        raise PlanError(f'{source}: stack {stack}: "keep" must be a list of block numbers, not {keep!r}')
    for block in keep:
        if not 0 <= block < depth:
            raise PlanError(f"{source}: stack {stack} keeps block {block}, but has only blocks 0 to {depth - 1}")
    if sorted(set(keep)) != keep:
        raise PlanError(f"{source}: stack {stack}: the kept blocks {keep} must ascend, each named once")
    return StackPlan(depth, tuple(keep))


def presets() -> list[str]:
    """Names of the bundled plans."""
    return sorted(p.stem for p in PRESET_DIR.glob("*.json"))


def load_plan(name_or_path: str | os.PathLike[str]) -> PrunePlan:
    """A bundled plan by name, or a plan file by path.

    Raises:
        PlanError: if there is no such preset or file, or it is no valid plan.
    """
    text = os.fspath(name_or_path)
    path = PRESET_DIR / f"{text}.json" if text in presets() else Path(text)
    try:
        data = read_json(path, "a plan", PlanError)
    except FileNotFoundError:
        raise PlanError(f"no plan named {text}, and no such file; bundled plans: {', '.join(presets())}") from None
    return PrunePlan.from_json(data, path.name)
