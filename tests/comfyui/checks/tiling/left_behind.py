"""Patches that need the whole picture, a block that is gone, or features of another size."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import comfy_extras.nodes_model_downscale
import comfy_extras.nodes_pag
import comfy_extras.nodes_sag
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.pgp_core.choices import PHASES
from pgp_pack.pgp_core.restorers.nano import model as nano_files
from pgp_pack.pgp_core.unet.plan import StackPlan

from ..raised import raised
from .setting import OVERLAP, TILE, setting

MIDDLE = "mid_block.attentions.0"


def _sag(model: Any) -> Any:
    return comfy_extras.nodes_sag.SelfAttentionGuidance.execute(model, 0.5, 2.0).args[0]


def _pag(model: Any) -> Any:
    return comfy_extras.nodes_pag.PerturbedAttentionGuidance.execute(model, 3.0).args[0]


def _shrunk(model: Any, after_skip: bool = True) -> Any:
    node = comfy_extras.nodes_model_downscale.PatchModelAddDownscale
    return node.execute(model, 1, 2.0, 0.0, 1.0, after_skip, "bicubic", "bicubic").args[0]


def _plan(model: Any) -> Any:
    """What nano has, without the one block in its middle."""
    plan = model.model.model_config.info.plan
    stacks = {**plan.stacks, MIDDLE: StackPlan(plan.stacks[MIDDLE].depth, ())}
    return dataclasses.replace(plan, stacks=stacks)


def check_tiling_left_behind(_out: Path) -> Any:
    nano, image, noise = setting()

    def refused(model: Any) -> list[str]:
        return raised(lambda: nano.sample(model, noise, steps=2))

    guided = nano.guided(image)
    results: dict[str, Any] = {
        "SAG": refused(tile_model(_sag(guided), TILE, OVERLAP)),
        "SAG, behind": refused(_sag(tile_model(guided, TILE, OVERLAP))),
        "SAG in one tile": torch.equal(
            nano.sample(tile_model(_sag(guided)), noise, steps=2), nano.sample(_sag(guided), noise, steps=2)
        ),
    }
    plan = _plan(nano.model)
    file = comfy_backbone.load_unet(str(nano_files.FOLDER / nano_files.UNET_FILE), {"plan": plan})
    results |= {
        "SAG, skipped": refused(_sag(comfy_backbone.apply_plan(nano.model, plan)[0])),
        "SAG, skipped behind": refused(comfy_backbone.apply_plan(_sag(nano.model), plan)[0]),
        "SAG, not in the file": refused(_sag(file)),
        # What nano is without: blocks beside the one that the patch reads.
        "SAG, block kept": refused(_sag(nano.model)),
        "PAG, skipped": refused(_pag(comfy_backbone.apply_plan(nano.model, plan)[0])),
    }
    for phase in PHASES:
        for after_skip in (True, False):
            for order in ("before", "behind"):
                model = _shrunk(nano.model, after_skip) if order == "before" else nano.model
                model = comfy_backbone.apply_guidance(model, nano.patch, image, 1.0, 0.0, 1.0)
                model = model if order == "before" else _shrunk(model, after_skip)
                results[f"Deep Shrink, {phase}, {after_skip}, {order}"] = refused(
                    tile_model(model, TILE, OVERLAP, phase=phase)
                )
    return results
