"""Core's TorchCompileModel beside guidance, tiles and plans; the compiler is PyTorch's, the backend runs as it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from comfy_api.torch_helpers.torch_compile import set_torch_compile_wrapper
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.pgp_core.unet.plan import StackPlan

from .. import scene

SIDE, OVERLAP, STEPS = 64, 32, 1
HEIGHT, WIDTH = 24, 16
#: ``inductor`` and ``cudagraphs``, which the node offers, need a C++ compiler or a card, and a minute.
BACKEND = "eager"


def compiled(model: Any, backend: str = BACKEND) -> Any:
    """As the node TorchCompileModel does it."""
    copy = model.clone(disable_dynamic=True)
    options = {"guard_filter_fn": skip_torch_compile_dict}
    set_torch_compile_wrapper(model=copy, backend=backend, options=options)
    return copy


def check_tiling_compiled(_out: Path) -> Any:
    """One compiled network, on which nodes behind it put a plan and tiles, and take neither."""
    nano, noise = scene.Nano(), scene.noise(1, HEIGHT, WIDTH)
    guided = nano.guided(scene.pictures(1, 1, HEIGHT, WIDTH))
    plan = nano.model.model.model_config.info.plan
    none = dataclasses.replace(plan, stacks={s: StackPlan(e.depth, ()) for s, e in plan.stacks.items()})

    def pruned(model: Any) -> Any:
        return comfy_backbone.apply_plan(model, none)[0]

    def canvas(model: Any) -> Any:
        return tile_model(model, SIDE, OVERLAP, phase="canvas")

    runs = [
        ("base", lambda m: m),
        ("canvas", canvas),
        ("pruned", pruned),
        ("canvas, pruned", lambda m: canvas(pruned(m))),
        ("base again", lambda m: m),
    ]
    expected = {name: nano.sample(act(guided), noise, STEPS) for name, act in runs}
    results: dict[str, Any] = {
        "matters": [scene.difference(expected["base"], expected[name]) for name in ("canvas", "pruned")]
    }
    one = compiled(guided)
    for name, act in runs:
        results[name] = scene.difference(nano.sample(act(one), noise, STEPS), expected[name])
    results["behind"] = scene.difference(
        nano.sample(compiled(canvas(pruned(guided))), noise, STEPS), expected["canvas, pruned"]
    )
    results["not compiled"] = scene.difference(nano.sample(guided, noise, STEPS), expected["base"])
    torch._dynamo.reset()
    return results
