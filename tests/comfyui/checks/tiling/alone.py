"""Tiles without the tiling: each sampled by core in a MODEL of its own, in step with the others."""

from __future__ import annotations

import itertools
import math
import queue
import threading
from collections.abc import Callable
from typing import Any

import comfy.samplers
import torch
from pgp_pack.pgp_core.tiling import Tile, grid

from .. import scene

#: Latent positions: tiles of 16 and 17 rows, at 0 and 8.
HEIGHT, WIDTH = 25, 16
SIDE, OVERLAP = 16, 8


def tiles() -> list[Tile]:
    return grid(HEIGHT, WIDTH, SIDE, OVERLAP)


class _Sampler:
    """Core's sampler on one MODEL, stopped before each step until it is told what to do."""

    def __init__(self, nano: Any, model: Any, noise: torch.Tensor, sigmas: torch.Tensor):
        self.asked: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()
        self._of = (nano, model, noise, sigmas)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def denoised(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.asked.put((x, sigma))
        answer = self.answers.get(timeout=120)
        if isinstance(answer, BaseException):
            raise answer
        result: torch.Tensor = answer
        return result

    def end(self) -> None:
        self.asked.put(None)
        self._thread.join(120)

    def _run(self) -> None:
        nano, model, noise, sigmas = self._of

        def stopped(denoise: Any, x: Any, _sigmas: Any, extra_args: Any = None, **_: Any) -> Any:
            while (asked := self.asked.get(timeout=120)) is not None:
                x, sigma = asked
                # Samplers hand over what is theirs; patches may add to it.
                self.answers.put(denoise(x.clone(), sigma.expand(len(x)), **extra_args).clone())
            return x

        try:
            with torch.inference_mode():
                guider = comfy.samplers.CFGGuider(model)
                # A tile is told the size of the whole picture, as core counts it.
                size = {"width": WIDTH * 8, "height": HEIGHT * 8}
                conds = ([[c, {**size, **extra}] for c, extra in cond] for cond in (nano.positive, nano.negative))
                guider.set_conds(*conds)
                guider.set_cfg(scene.CFG)
                guider.sample(noise, torch.zeros_like(noise), comfy.samplers.KSAMPLER(stopped), sigmas, seed=scene.SEED)
        except BaseException as e:
            self.answers.put(e)


def sampled(
    nano: Any,
    model_of: Callable[[Tile], Any],
    noise: torch.Tensor,
    steps: int,
    latent: torch.Tensor | None = None,
    mask: Callable[[int], torch.Tensor] | None = None,
) -> torch.Tensor:
    """The latent that tiles make when each has a MODEL of its own, blended by hand at every step.

    Args:
        latent: what is there before, with ``mask``.
        mask: of a step's number, where it may change, ``(1, 1, H, W)`` in [0, 1].
    """
    sampling = nano.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", steps)
    full = math.isclose(float(sampling.sigma_max), float(sigmas[0]), rel_tol=1e-5)
    before = torch.zeros_like(noise) if latent is None else nano.model.model.process_latent_in(latent)
    x = sampling.noise_scaling(sigmas[0], noise, before, full)
    samplers = [_Sampler(nano, model_of(t), t.crop(noise).clone(), sigmas) for t in tiles()]
    try:
        for step, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
            free = mask(step) if mask else torch.ones(1, 1, HEIGHT, WIDTH)
            # Elsewhere the model sees what was there, as noisy as the rest.
            seen = x * free + sampling.noise_scaling(sigma, noise, before) * (1 - free)
            parts = [s.denoised(t.crop(seen), sigma) for s, t in zip(samplers, tiles(), strict=True)]
            denoised = together(parts) * free + before * (1 - free)
            # Euler's step, as core sums it: at the first sigmas it cancels large numbers.
            x = x + (x - denoised) / sigma * (following - sigma)
    finally:
        for s in samplers:
            s.end()
    result: torch.Tensor = nano.model.model.process_latent_out(x)
    return result


def together(parts: list[torch.Tensor]) -> torch.Tensor:
    """Two tiles, one above the other: what is above fades over the middle half of what they share."""
    (above, below), y = parts, tiles()[1].y
    rows = torch.arange(HEIGHT, dtype=torch.float32)
    # From position 10 to 14 of 8 to 16, the positions' middles counted.
    share = 0.5 - 0.5 * torch.cos(torch.pi * ((rows - y - OVERLAP / 4 + 0.5) / (OVERLAP / 2)).clamp(0, 1))
    share[:y], share[SIDE:] = 0, 1
    share = share[:, None]
    whole = torch.zeros(*above.shape[:2], HEIGHT, WIDTH)
    whole[..., :SIDE, :] += above * (1 - share[:SIDE])
    whole[..., y:, :] += below * share[y:]
    return whole


def guided(nano: Any, image: torch.Tensor, noise: torch.Tensor) -> tuple[Any, Callable[[Tile], Any]]:
    """The MODEL with guidance, and what makes one for a tile alone, whose features are cut by hand."""
    kept: list[Any] = []
    whole = nano.guided(image)
    nano.sample(whole, noise, steps=1, callback=lambda *_: kept.append(scene.patch_of(whole).features))
    (features,) = kept

    def of_tile(tile: Tile) -> Any:
        own = scene.Nano().guided(image)
        patch = scene.patch_of(own)

        def cut(site: int, *_: Any, **__: Any) -> torch.Tensor:
            part: torch.Tensor = tile.coarser(1 << patch.halvings(site)).crop(features[site])
            return part

        patch._features.whole = cut
        return own

    return whole, of_tile
