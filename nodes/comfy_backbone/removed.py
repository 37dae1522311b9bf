"""Patches for blocks that a plan has removed: core never calls them, and whoever waits for what they store errs."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ...pgp_core.errors import PGPError
from ...pgp_core.unet.topology import KeyMap
from . import left_behind
from .blocks import Block, depths_of, left_out
from .topology import names_of

KEY = "pgp_diffsr.removed"


def watch(patcher: ModelPatcher) -> None:
    """Let a MODEL with removed blocks look at its patches when a run begins.

    Args:
        patcher: changed in place.
    """

    def run(executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        model = guider.model_patcher
        _check(guider.model_options, left_out(model), depths_of(model), names_of(model))
        return executor(*args, **kwargs)

    patcher.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, run)


def _check(model_options: dict[str, Any], removed: set[Block], depths: dict[str, int], names: KeyMap) -> None:
    """Raises PGPError where a function outside the model reads what a patch for a removed block would store."""
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
