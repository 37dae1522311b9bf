"""A MODEL's schedule that is changed after it was guided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy.sample
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM, ModelSamplingDiscrete
from pgp_pack.nodes.comfy_backbone import adaptive_model, tile_model
from pgp_pack.pgp_core.guidance.module import Guidance
from pgp_pack.pgp_core.tiling import Split

import nodes

from .. import scene

START, END, STEPS = 0.3, 0.8, 6
#: What core's nodes make of a schedule.
CHANGES: dict[str, Callable[[Any], Any]] = {
    "none": lambda model: model,
    "zsnr": lambda model: ModelSamplingDiscrete().patch(model, "eps", True)[0],
    "EDM": lambda model: ModelSamplingContinuousEDM().patch(model, "v_prediction", 120.0, 0.002)[0],
}


def _sample(nano: scene.Nano, model: Any, noise: torch.Tensor, callback: Any = None) -> torch.Tensor:
    # fmt: off
    result: torch.Tensor = comfy.sample.sample(
        model, noise, STEPS, 1.0, "euler", "karras", nano.positive, nano.negative, torch.zeros_like(noise),
        denoise=1.0, seed=scene.SEED, callback=callback, disable_pbar=True,
    )
    # fmt: on
    return result


def check_range_on_another_schedule(_out: Path) -> Any:
    """The steps in which the guidance works are those in which core would use a conditioning of the same range."""
    nano = scene.Nano()
    image, noise = scene.pictures(1, 1, 9, 7), scene.noise(1, 9, 7)
    results = {}
    for name, change in CHANGES.items():
        results[name] = {
            "guidance": _fused(nano, change(nano.guided(image, start=START, end=END)), noise),
            "core": _by_core(nano, change(nano.model), noise),
            "order": torch.equal(
                _sample(nano, change(nano.guided(image, start=START, end=END)), noise).nan_to_num(),
                _sample(nano, _guided(nano, change(nano.model), image), noise).nan_to_num(),
            ),
        }
    return results


def _guided(nano: scene.Nano, model: Any, image: torch.Tensor) -> Any:
    from pgp_pack.nodes import comfy_backbone

    return comfy_backbone.apply_guidance(model, nano.patch, image, 1.0, START, END)


def _fused(nano: scene.Nano, model: Any, noise: torch.Tensor) -> list[int]:
    step, fused, fuse = [0], [], Guidance.fuse

    def noting(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        fused.append(step[0])
        return fuse(self, *args, **kwargs)

    def count(i: int, *_: Any) -> None:
        step[0] = i + 1

    with replace.object(Guidance, "fuse", noting):
        _sample(nano, model, noise, count)
    return fused


def _by_core(nano: scene.Nano, model: Any, noise: torch.Tensor) -> list[int]:
    """Steps for which core calls the model with a conditioning that has the range."""
    step, called = [0], []
    model = model.clone()
    positive = nano.positive
    with_range = nodes.NODE_CLASS_MAPPINGS["ConditioningSetTimestepRange"]().set_range(positive, START, END)[0]

    def wrapper(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        called.append(step[0])
        result: torch.Tensor = apply(args["input"], args["timestep"], **args["c"])
        return result

    def count(i: int, *_: Any) -> None:
        step[0] = i + 1

    model.set_model_unet_function_wrapper(wrapper)
    nano.positive = with_range
    try:
        _sample(nano, model, noise, count)
    finally:
        nano.positive = positive
    return called


def check_adaptive_on_another_schedule(_out: Path) -> Any:
    """Before or behind the change of the schedule: the same tiles wait."""
    nano, size = scene.Nano(), (32, 24)
    mask, noise = torch.zeros(1, *size), scene.noise(1, *size)
    mask[:, 16:] = 1
    coarse = {"samples": torch.zeros(1, scene.CHANNELS, *size)}
    tiled = tile_model(nano.model, 16 * scene.FACTOR, 8 * scene.FACTOR)

    def adaptive(model: Any) -> Any:
        return adaptive_model(model, mask, coarse, Split(0.5, 0.0), (0.4, 1.0), 1)

    results = {}
    for name, change in CHANGES.items():
        with scene.Messages() as messages:
            behind = _sample(nano, change(adaptive(tiled)), noise)
            front = _sample(nano, adaptive(change(tiled)), noise)
        said = [line for line in messages.lines if "the model was called for" in line]
        results[name] = [torch.equal(behind.nan_to_num(), front.nan_to_num()), *said]
    return results
