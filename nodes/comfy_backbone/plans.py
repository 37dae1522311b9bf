"""Prune plans by the names that nodes list: bundled ones, and files in ComfyUI's folders."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...pgp_core.errors import PlanError
from ...pgp_core.planner.saving import plan_path, save_plan
from ...pgp_core.unet.plan import PrunePlan, load_plan, presets
from .folders import PLANS, PLANS_EXTENSION, files
from .saving import relative_to_output

#: The loader's choice that removes nothing.
NO_PLAN = "none"


def plan_files() -> list[str]:
    """Plans in ``models/pgp_plans`` and ``output/pgp_plans``; they end in .json, bundled ones do not."""
    return files(PLANS, PLANS_EXTENSION)


def plan_choices() -> list[str]:
    """What a loader offers: nothing, the bundled plans, then files."""
    return [NO_PLAN, *presets(), *plan_files()]


def plan_named(name: str) -> PrunePlan | None:
    """A plan by its name in :func:`plan_choices`; None for :data:`NO_PLAN`.

    Raises:
        PlanError: if there is none of that name, or it is no valid plan.
    """
    if name == NO_PLAN:
        return None
    if name in presets():
        return load_plan(name)
    if name not in plan_files():
        raise PlanError(f"there is no plan {name}: put it into models/pgp_plans and refresh, or choose another")
    return load_plan(folder_paths.get_full_path_or_raise(PLANS, name))


def save_plan_named(plan: PrunePlan, name: str, overwrite: bool) -> str:
    """Write a plan to ``output/pgp_plans``; where, for people.

    Raises:
        PlanError: if the name holds a path, or is taken.
    """
    path = plan_path(Path(folder_paths.get_output_directory()) / PLANS, name)
    save_plan(plan, path, overwrite)
    return relative_to_output(path)
