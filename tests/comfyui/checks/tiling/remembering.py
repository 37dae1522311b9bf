"""Patches of core and of other packs in tiles, against the same patch on each tile alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy_extras.nodes_apg
import comfy_extras.nodes_cfg
import comfy_extras.nodes_easycache
import comfy_extras.nodes_eps
import comfy_extras.nodes_freelunch
import comfy_extras.nodes_fresca
import comfy_extras.nodes_hypertile
import comfy_extras.nodes_mahiro
import comfy_extras.nodes_model_advanced
import comfy_extras.nodes_nag
import comfy_extras.nodes_pag
import comfy_extras.nodes_tcfg
import torch
from comfy.patcher_extension import WrappersMP
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.pgp_core.tiling import Tile
from pgp_pack.pgp_core.unet.plan import StackPlan

from .. import scene
from . import alone, stand_ins
from .setting import wrapped

STEPS = 4
SIDE, OVERLAP = alone.SIDE * scene.FACTOR, alone.OVERLAP * scene.FACTOR


def _node(node: Any, *args: Any) -> Callable[[Any], Any]:
    """What a node of core's makes of a MODEL."""

    def act(model: Any) -> Any:
        out = node.execute(model, *args)
        return out[0] if isinstance(out, tuple) else out.args[0]

    return act


def _freeu(node: Any, *args: Any) -> Callable[[Any], Any]:
    """On a network whose width it takes for Stable Diffusion's."""
    act = _node(node, *args)

    def on_nano(model: Any) -> Any:
        config = model.model.model_config.unet_config
        with replace.dict(config, model_channels=model.model.diffusion_model.output_blocks[0][0].out_channels // 4):
            return act(model)

    return on_nano


#: Within the model: what a tile gets is what it would get alone.
WITHIN: dict[str, Callable[[Any], Any]] = {
    "EasyCache": _node(comfy_extras.nodes_easycache.EasyCacheNode, 0.4, 0.0, 1.0, False),
    "PerturbedAttentionGuidance": _node(comfy_extras.nodes_pag.PerturbedAttentionGuidance, 3.0),
    "FreeU": _freeu(comfy_extras.nodes_freelunch.FreeU, 1.1, 1.2, 0.9, 0.2),
    "FreeU_V2": _freeu(comfy_extras.nodes_freelunch.FreeU_V2, 1.3, 1.4, 0.9, 0.2),
    "HyperTile": _node(comfy_extras.nodes_hypertile.HyperTile, 32, 1, 1, False),
    "NAGuidance": _node(comfy_extras.nodes_nag.NAGuidance, 5.0, 0.5, 1.5),
    "EpsilonScaling": _node(comfy_extras.nodes_eps.EpsilonScaling, 1.005),
    **stand_ins.ALL,
}
#: Outside of it: they see the whole picture, as without tiles.
OUTSIDE: dict[str, Callable[[Any], Any]] = {
    "LazyCache": _node(comfy_extras.nodes_easycache.LazyCacheNode, 0.4, 0.0, 1.0, False),
    "APG": _node(comfy_extras.nodes_apg.APG, 0.5, 5.0, -0.5),
    "TCFG": _node(comfy_extras.nodes_tcfg.TCFG),
    "FreSca": _node(comfy_extras.nodes_fresca.FreSca, 1.0, 1.25, 20),
    "Mahiro": _node(comfy_extras.nodes_mahiro.Mahiro),
    "TemporalScoreRescaling": _node(comfy_extras.nodes_eps.TemporalScoreRescaling, 0.9, 0.9),
    "CFGZeroStar": _node(comfy_extras.nodes_cfg.CFGZeroStar),
    "RescaleCFG": lambda model: comfy_extras.nodes_model_advanced.RescaleCFG().patch(model, 0.7)[0],
}


def check_tiling_remembering(_out: Path) -> Any:
    nano, noise = scene.Nano(), scene.noise(1, alone.HEIGHT, alone.WIDTH)
    plain = nano.sample(tile_model(nano.model, SIDE, OVERLAP), noise, STEPS)
    results: dict[str, Any] = {"tiles": [[t.y, t.height] for t in alone.tiles()]}
    results["none"] = [scene.difference(alone.sampled(nano, lambda _: scene.Nano().model, noise, STEPS), plain), 1.0]
    for name, act in WITHIN.items():
        expected = alone.sampled(nano, lambda _, act=act: act(scene.Nano().model), noise, STEPS)
        got = nano.sample(tile_model(act(nano.model), SIDE, OVERLAP), noise, STEPS)
        results[name] = [scene.difference(got, expected), scene.difference(got, plain)]
        if name == "EasyCache":
            behind = nano.sample(act(tile_model(nano.model, SIDE, OVERLAP)), noise, STEPS)
            results[f"{name}, behind"] = [scene.difference(behind, expected), scene.difference(behind, plain)]
    return results


def check_tiling_remembering_guided(_out: Path) -> Any:
    """With guidance, whose features are cut by hand for the tiles that are alone, and with a plan on the MODEL."""
    nano, noise = scene.Nano(), scene.noise(1, alone.HEIGHT, alone.WIDTH)
    image = scene.pictures(1, 1, alone.HEIGHT, alone.WIDTH)
    info = nano.model.model.model_config.info.plan
    plan = dataclasses.replace(info, stacks={s: StackPlan(e.depth, e.keep[1:]) for s, e in info.stacks.items()})
    whole, of_tile = alone.guided(nano, image, noise)

    def guided(tile: Tile) -> Any:
        return comfy_backbone.apply_plan(of_tile(tile), plan)[0]

    pruned = comfy_backbone.apply_plan(whole, plan)[0]
    plain = nano.sample(tile_model(pruned, SIDE, OVERLAP), noise, STEPS)
    results = {}
    for name in ("none", "EasyCache", "closure"):
        act = WITHIN.get(name, lambda model: model)
        expected = alone.sampled(nano, lambda tile, act=act: act(guided(tile)), noise, STEPS)
        got = nano.sample(tile_model(act(pruned), SIDE, OVERLAP), noise, STEPS)
        results[name] = [scene.difference(got, expected), scene.difference(got, plain)]
    return results


def check_tiling_afterwards(_out: Path) -> Any:
    """What a patch holds when a run has ended, and a batch in parts, each of which begins anew."""
    nano, noise = scene.Nano(), scene.noise(2, alone.HEIGHT, alone.WIDTH)
    model = stand_ins.instance(nano.model)
    (distance,) = model.wrappers[WrappersMP.DIFFUSION_MODEL]["distance"]
    closure = stand_ins.closure(nano.model)
    wrapper = closure.model_options["model_function_wrapper"]
    first, again = (nano.sample(tile_model(model, SIDE, OVERLAP), noise[:1], STEPS) for _ in range(2))
    nano.sample(tile_model(closure, SIDE, OVERLAP), noise[:1], STEPS)
    held = [*vars(distance).values(), *distance.state.values(), *(c.cell_contents for c in wrapper.__closure__)]
    parts = nano.sample(tile_model(model, SIDE, OVERLAP, frames=1), noise, STEPS)
    each = torch.cat([nano.sample(tile_model(model, SIDE, OVERLAP), n[None], STEPS) for n in noise])
    return {
        "plain numbers": all(type(v) in (bool, int, float, dict, type(None)) for v in held),
        "nothing of a tile": not any(isinstance(v, torch.Tensor) for v in held),
        "the same again": torch.equal(first, again),
        "in parts": scene.difference(parts, each),
    }


def check_tiling_outside(_out: Path) -> Any:
    nano, noise = scene.Nano(), scene.noise(1, alone.HEIGHT, alone.WIDTH)

    def by_hand(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        x = args["input"]
        return alone.together([apply(t.crop(x).clone(), args["timestep"], **args["c"]) for t in alone.tiles()])

    plain = nano.sample(tile_model(nano.model, SIDE, OVERLAP), noise, STEPS)
    results = {}
    for name, act in OUTSIDE.items():
        expected = nano.sample(act(wrapped(nano.model, by_hand)), noise, STEPS)
        got = nano.sample(act(tile_model(nano.model, SIDE, OVERLAP)), noise, STEPS)
        results[name] = [scene.difference(got, expected), scene.difference(got, plain)]
    return results
