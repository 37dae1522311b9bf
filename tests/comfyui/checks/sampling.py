"""Sampling with core's KSampler: parity, batching, model management, strength and range."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.samplers
import torch
from pgp_pack.nodes.comfy_backbone import GuidancePatch
from pgp_pack.pgp_core.guidance.module import Guidance

from . import scene


def check_parity(out: Path) -> Any:
    nano = scene.Nano()
    image, noise = scene.pictures(1, batch=2), scene.noise(batch=2)
    latent = nano.sample(nano.guided(image), noise)
    scene.save(out, image=image, noise=noise, latent=latent, **nano.peam_weights())
    unguided = nano.sample(nano.model, noise)
    return {"shape": list(latent.shape), "guidance changes": scene.difference(latent, unguided)}


def check_cond_and_uncond_apart(_out: Path) -> Any:
    nano = scene.Nano()
    image, noise = scene.pictures(1, batch=2), scene.noise(batch=2)
    model = nano.guided(image)

    def sample() -> tuple[torch.Tensor, list[list[int]]]:
        chunks: list[list[int]] = []
        call = GuidancePatch.__call__

        def recording(self: Any, h: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
            if options["block"] == ("input", 0):
                chunks.append(list(options["cond_or_uncond"]))
            return call(self, h, options)

        with replace.object(GuidancePatch, "__call__", recording):
            return nano.sample(model, noise), chunks

    together, chunks_together = sample()
    # Core puts as many conditionings together as the free memory holds.
    with replace.object(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: 0):
        apart, chunks_apart = sample()
    return {
        "together": chunks_together,
        "apart": chunks_apart,
        "difference": scene.difference(together, apart),
    }


def check_model_management(_out: Path) -> Any:
    nano = scene.Nano()
    model = nano.guided(scene.pictures(1))
    loaded: list[bool] = []
    held: list[bool] = []

    def watch(*_: Any) -> None:
        loaded.append(any(m.model is nano.patch for m in comfy.model_management.current_loaded_models))
        held.append(scene.patch_of(model).features is not None)

    features = Guidance.features
    calls: list[int] = []

    def counting(self: Any, lq: torch.Tensor, *args: Any) -> Any:
        calls[-1] += 1
        return features(self, lq, *args)

    after = []
    with replace.object(Guidance, "features", counting):
        for _run in range(2):
            calls.append(0)
            nano.sample(model, scene.noise(), callback=watch)
            after.append(scene.patch_of(model).features is None)
    return {"loaded": loaded, "held": held, "feature calls a run": calls, "dropped after": after}


def check_strength_zero(_out: Path) -> Any:
    nano = scene.Nano()
    noise = scene.noise()
    unguided = nano.sample(nano.model, noise)
    results = {s: nano.sample(nano.guided(scene.pictures(1), strength=s), noise) for s in (0.0, 0.5, 1.0)}
    return {
        "zero is unguided": torch.equal(results[0.0], unguided),
        "half differs from unguided": scene.difference(results[0.5], unguided),
        "half differs from whole": scene.difference(results[0.5], results[1.0]),
    }


#: Of the four timesteps 751, 501, 251, 1 this range holds the middle two: 999 * 0.7 = 699, 999 * 0.2 = 200.
START, END = 0.3, 0.8


def check_range(out: Path) -> Any:
    nano = scene.Nano()
    image, noise = scene.pictures(1), scene.noise()
    guided, part = nano.guided(image), nano.guided(image, start=START, end=END)
    sampling = nano.model.get_model_object("model_sampling")
    fused: list[int] = []
    now: list[int] = []
    call, fuse = GuidancePatch.__call__, Guidance.fuse

    def noting_time(self: Any, h: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        now[:] = [round(float(sampling.timestep(options["sigmas"][0])))]
        return call(self, h, options)

    def noting_fuse(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        fused.extend(now)
        return fuse(self, *args, **kwargs)

    with replace.object(GuidancePatch, "__call__", noting_time), replace.object(Guidance, "fuse", noting_fuse):
        latent = nano.sample(part, noise)

    # The same by hand: unguided to the second sigma, guided for two steps, unguided to the end.
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", scene.STEPS)
    euler, nothing = comfy.samplers.ksampler("euler"), torch.zeros_like(noise)

    def stretch(model: Any, first: int, last: int, latent: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        # fmt: off
        result: torch.Tensor = comfy.sample.sample_custom(
            model, noise, scene.CFG, euler, sigmas[first : last + 1], nano.positive, nano.negative, latent,
            disable_pbar=True, seed=scene.SEED,
        )
        # fmt: on
        return result

    composed = stretch(nano.model, 0, 1, nothing, noise)
    composed = stretch(guided, 1, 3, composed, nothing)
    composed = stretch(nano.model, 3, 4, composed, nothing)
    scene.save(out, image=image, noise=noise, latent=latent, **nano.peam_weights())
    return {
        "sites": len(nano.patch.model.spec.sites),
        "timesteps": [round(float(sampling.timestep(s))) for s in sigmas[:-1]],
        "fused at": fused,
        "from the composition": scene.difference(latent, composed),
        "from guided throughout": scene.difference(latent, nano.sample(guided, noise)),
    }


def check_picture_of_another_size(_out: Path) -> Any:
    """A canvas that does not fit the latent is resized; the sampling goes through."""
    nano = scene.Nano()
    large = scene.pictures(1, height=2 * scene.HEIGHT, width=2 * scene.WIDTH)
    latent = nano.sample(nano.guided(large), scene.noise(), steps=2)
    return {"finite": bool(latent.isfinite().all()), "shape": list(latent.shape)}
