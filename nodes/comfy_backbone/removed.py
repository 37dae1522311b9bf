"""Patches for blocks that a plan has removed: core never calls them, and whoever waits for what they store errs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ...pgp_core.errors import PGPError
from ...pgp_core.unet.topology import KeyMap
from . import left_behind

KEY = "pgp_diffsr.removed"


def watch(patcher: ModelPatcher, skipped: Callable[[ModelPatcher], set[tuple[str, int]]] | None = None) -> None:
    """Let a MODEL with removed blocks look at its patches when a run begins.

    Args:
        patcher: changed in place.
        skipped: of a MODEL, ``(stack, number)`` of the blocks that are there and passed over.
    """

    def run(executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        model = guider.model_patcher
        _check(guider.model_options, _pruned_away(model) | (skipped(model) if skipped else set()), _stacks(model))
        return executor(*args, **kwargs)

    patcher.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, run)


def _check(model_options: dict[str, Any], removed: set[tuple[str, int]], depths: dict[str, int]) -> None:
    """Raises PGPError where a function outside the model reads what a patch for a removed block would store."""
    names = KeyMap()
    gone: set[tuple[Any, ...]] = set()
    for stack, number in removed:
        gone.add((*_place(names.to_ldm(stack)), number))
    for stack, depth in depths.items():
        if all((stack, n) in removed for n in range(depth)):
            gone.add(_place(names.to_ldm(stack)))
    functions = left_behind.outside(model_options)
    for patches in model_options.get("transformer_options", {}).get("patches_replace", {}).values():
        for place, patch in patches.items():
            if place not in gone:
                continue
            for function in functions:
                if left_behind.leaves(patch, function):
                    block = f"block {place[2]} of the {place[0]}" if len(place) > 2 else f"blocks of the {place[0]}"
                    raise PGPError(
                        f"{left_behind.label(function)} reads the attention of {block}, which the plan removes; "
                        "take it out, or use a plan that keeps it"
                    )


def _place(stack: str) -> tuple[str, int]:
    """How core's options name where a stack lies, by its name in LDM's scheme: ``input_blocks.4.1`` is ``input, 4``."""
    kind, number, *_ = stack.split(".")
    kind = kind.removesuffix("_blocks").removesuffix("_block")
    return (kind, 0) if kind == "middle" else (kind, int(number))


def _pruned_away(model: ModelPatcher) -> set[tuple[str, int]]:
    """Blocks that a file of this pack does not have."""
    info = getattr(model.model.model_config, "info", None)
    if info is None:
        return set()
    return {(s, n) for s, entry in info.plan.stacks.items() for n in range(entry.depth) if n not in entry.keep}


def _stacks(model: ModelPatcher) -> dict[str, int]:
    """How many blocks each stack has in the whole model."""
    info = getattr(model.model.model_config, "info", None)
    if info is not None:
        return {s: entry.depth for s, entry in info.plan.stacks.items()}
    depths: dict[str, int] = {}
    names = KeyMap()
    for name, module in model.model.diffusion_model.named_modules():
        if name.endswith(".transformer_blocks"):
            depths[names.to_diffusers(name.removesuffix(".transformer_blocks"))] = len(list(module.children()))
    return depths
