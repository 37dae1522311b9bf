"""A batch in parts, as the frames of a video are sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy.controlnet
import comfy.sample
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.pgp_core.guidance.module import Guidance
from pgp_pack.pgp_core.restorers.nano import model as nano_files

from .. import scene
from .setting import Last


def check_tiling_frames(_out: Path) -> Any:
    nano, image, noise = scene.Nano(), scene.pictures(1, 3, 9, 7), scene.noise(3, 9, 7)
    mask = torch.zeros(3, 9, 7)
    mask[0, :4], mask[1, 4:], mask[2] = 1, 1, 1
    latent = scene.noise(3, 9, 7).flip(0) * 0.1
    results: dict[str, Any] = {"from the whole": {}}
    held: list[list[int]] = []
    made: list[int] = []
    of = Guidance.features

    def noting(self: Any, lq: torch.Tensor, *args: Any) -> Any:
        made.append(len(lq))
        return of(self, lq, *args)

    # fmt: off
    def sample(model: Any, callback: Any = None) -> torch.Tensor:
        result: torch.Tensor = comfy.sample.sample(
            model, noise, 3, scene.CFG, "euler", "ddim_uniform", nano.positive, nano.negative, latent,
            noise_mask=mask, seed=scene.SEED, callback=callback, disable_pbar=True,
        )
        return result
    # fmt: on

    for pictures in (1, 3):
        whole = sample(nano.guided(image[:pictures]))
        for frames in (1, 2, 3):
            behind = tile_model(nano.guided(image[:pictures]), frames=frames)
            front = comfy_backbone.apply_guidance(
                tile_model(nano.model, frames=frames), nano.patch, image[:pictures], 1.0, 0.0, 1.0
            )
            differences = [scene.difference(sample(m), whole) * nano_files.SCALE for m in (behind, front)]
            results["from the whole"][f"{pictures} pictures, {frames} frames"] = differences
    whole_watch, watch = Last(), Last()
    unguided = sample(nano.model, whole_watch)
    with replace.object(Guidance, "features", noting):
        for model in (
            tile_model(nano.guided(image), frames=2),
            comfy_backbone.apply_guidance(tile_model(nano.model, frames=2), nano.patch, image, 1.0, 0.0, 1.0),
        ):
            held.append([])
            patch = scene.patch_of(model)
            sample(model, _Watching(patch, held[-1]))
    results["held"], results["made"] = held, len(made)
    in_parts = sample(tile_model(nano.model, frames=2), watch)
    results["steps"] = watch.steps
    results["last"] = scene.difference(watch.x0, whole_watch.x0)
    results["unguided"] = scene.difference(in_parts, unguided) * nano_files.SCALE
    # One prompt, one mask and one ControlNet picture per latent.
    positive = [
        [
            nano.positive[0][0] * torch.tensor([1.0, 0.5, 0.0])[:, None, None],
            {**nano.positive[0][1], "control": _Control(torch.rand(3, 1, 9, 7)), "mask": mask.flip(0) * 0.5 + 0.5},
        ]
    ]
    nano.positive = nano.negative = positive
    whole = nano.sample(nano.model, noise)
    shares = [nano.sample(tile_model(nano.model, frames=n), noise) for n in (1, 2)]
    results["conditioning"] = [scene.difference(s, whole) * nano_files.SCALE for s in shares]
    results["conditioning matters"] = scene.difference(whole[:1], nano.sample(nano.model, noise)[1:2])
    results["hints"] = list(positive[0][1]["control"].cond_hint_original.shape)
    return results


class _Watching:
    """A callback that counts the pictures whose features are held."""

    def __init__(self, patch: Any, held: list[int]) -> None:
        self.patch, self.held = patch, held

    def __call__(self, *_: Any) -> None:
        self.held.append(len(self.patch.features[0]))


class _Control(comfy.controlnet.ControlBase):
    """A ControlNet that adds its picture to the first features."""

    def __init__(self, hint: torch.Tensor) -> None:
        super().__init__()
        self.set_cond_hint(hint)

    def copy(self) -> _Control:
        copied = _Control(self.cond_hint_original)
        self.copy_to(copied)
        return copied

    def get_control(self, x: torch.Tensor, t: Any, cond: Any, batched_number: int, options: Any) -> Any:
        hint = comfy.controlnet.broadcast_image_to(self.cond_hint_original, len(x), batched_number)
        return {"input": [hint.expand(-1, 32, -1, -1)]}
