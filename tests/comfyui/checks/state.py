"""What a MODEL is like after a run that was interrupted, or that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import torch

from . import scene

STEPS, STOP_AFTER, AFTERWARDS = 5, 3, 2

#: Small, since much is sampled here.
HEIGHT, WIDTH = 9, 7


class Broken(Exception):
    """What a callback raises here."""


def check_interrupted(_out: Path) -> Any:
    return _stopped(comfy.model_management.interrupt_current_processing)


def check_failed(_out: Path) -> Any:
    def fail() -> None:
        raise Broken

    return _stopped(fail)


def _stopped(stop: Any) -> Any:
    nano = scene.Nano()
    noise = scene.noise(1, HEIGHT, WIDTH)
    first, other = (scene.pictures(seed, 1, HEIGHT, WIDTH) for seed in (1, 2))
    weights = {k: v.clone() for k, v in nano.model.model.state_dict().items()}
    guidance_weights = {k: v.clone() for k, v in nano.patch.model.state_dict().items()}
    options = _structure(nano.model.model_options)
    guided = nano.guided(first)
    steps: list[int] = []

    def callback(step: int, *_: Any) -> None:
        steps.append(step + 1)
        if step + 1 == STOP_AFTER:
            stop()

    raised = ""
    try:
        nano.sample(guided, noise, steps=STEPS, callback=callback)
    except (comfy.model_management.InterruptProcessingException, Broken) as e:
        raised = type(e).__name__
    result = {
        "raised": raised,
        "steps": steps,
        "weights": _same(weights, nano.model.model.state_dict()),
        "guidance's weights": _same(guidance_weights, nano.patch.model.state_dict()),
        "options": options == _structure(nano.model.model_options),
        "patches": not nano.model.patches and not nano.model.object_patches,
        "features dropped": scene.patch_of(guided).features is None,
        "interruption cleared": not comfy.model_management.processing_interrupted(),
    }
    # Afterwards: another picture on the same MODEL, and the same picture on the same guided MODEL.
    fresh = scene.Nano()
    expected = {
        "another picture": fresh.sample(fresh.guided(other), noise, AFTERWARDS),
        "the same guided model": fresh.sample(fresh.guided(first), noise, AFTERWARDS),
        "unguided": fresh.sample(fresh.model, noise, AFTERWARDS),
    }
    models = {"another picture": nano.guided(other), "the same guided model": guided, "unguided": nano.model}
    for run, model in models.items():
        result[run] = torch.equal(nano.sample(model, noise, AFTERWARDS), expected[run])
    result["pictures matter"] = scene.difference(expected["another picture"], expected["the same guided model"])
    return result


def check_clone_for_hooks(_out: Path) -> Any:
    """Core builds a second MODEL for conditioning hooks from what a loader left on the first."""
    nano = scene.Nano()
    load, arguments = nano.model.cached_patcher_init
    again = load(*arguments, disable_dynamic=True)
    return {"weights": _same(nano.model.model.state_dict(), again.model.state_dict())}


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def _structure(value: Any) -> Any:
    """A comparable copy: containers by content, everything else by identity."""
    if isinstance(value, dict):
        return {k: _structure(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_structure(v) for v in value]
    return value if isinstance(value, str | int | float | None) else id(value)
