"""Which picture guides which latent, and pictures of another size than the latent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.utils
import torch
from comfy_extras.nodes_rebatch import LatentRebatch
from pgp_pack.nodes.color_fix import PGPDiffSRColorFix
from pgp_pack.nodes.comfy_backbone import adaptive_model, tile_model
from pgp_pack.pgp_core.tiling import Split

import nodes

from .. import scene
from ..raised import raised
from .averages import Averages, seen

HEIGHT, WIDTH = 9, 7


def _sampled(nano: scene.Nano, model: Any, latent: dict[str, Any]) -> torch.Tensor:
    """As the KSampler node samples a LATENT."""
    samples = latent["samples"]
    # fmt: off
    result: torch.Tensor = nodes.common_ksampler(
        model, scene.SEED, 2, scene.CFG, "euler", "ddim_uniform", nano.positive, nano.negative,
        {**latent, "samples": torch.zeros_like(samples)},
    )[0]["samples"]
    # fmt: on
    return result


def check_counts(_out: Path) -> Any:
    nano, image = scene.Nano(), scene.pictures(1, 4, HEIGHT, WIDTH)
    latent = {"samples": torch.zeros(4, scene.CHANNELS, HEIGHT, WIDTH)}
    third = nodes.LatentFromBatch().frombatch(latent, 2, 1)[0]
    twice = nodes.RepeatLatentBatch().repeat(latent, 2)[0]
    parts = LatentRebatch.execute([latent], [3]).args[0]
    guided, one = nano.guided(image), nano.guided(image[:1])
    results: dict[str, Any] = {
        "latent from batch": raised(lambda: _sampled(nano, guided, third)),
        "repeated": raised(lambda: _sampled(nano, guided, twice)),
        "rebatched": raised(lambda: _sampled(nano, guided, parts[0])),
        "in parts": raised(lambda: _sampled(nano, tile_model(guided, frames=2), twice)),
        "in parts of as many": raised(lambda: _sampled(nano, tile_model(nano.guided(image[:2]), frames=2), latent)),
        "strength 0": raised(lambda: _sampled(nano, nano.guided(image, 0.0), twice)),
    }
    whole = _sampled(nano, guided, latent)
    # What is connected as the messages say.
    results["third alone"] = scene.difference(_sampled(nano, nano.guided(image[2:3]), third), whole[2:3])
    results["one for all"] = scene.difference(
        _sampled(nano, one, twice), _sampled(nano, nano.guided(image[:1].expand(8, -1, -1, -1)), twice)
    )
    results["pictures matter"] = scene.difference(_sampled(nano, one, latent), whole)
    return results


def check_counts_of_masks(_out: Path) -> Any:
    """Adaptive's masks and coarse latents belong to latents, too."""
    nano, size = scene.Nano(), (32, 24)
    masks = torch.zeros(2, *size)
    masks[:, 16:] = 1
    tiled = tile_model(nano.model, 16 * scene.FACTOR, 8 * scene.FACTOR)
    coarse = {"samples": torch.zeros(2, scene.CHANNELS, *size)}
    model = adaptive_model(tiled, masks, coarse, Split(0.5, 0.0), (0.4, 1.0), 1)
    area = nodes.ConditioningSetArea().append(nano.positive, 160, 128, 0, 64, 1.0)[0]
    results = {
        "four": raised(lambda: nano.sample(model, scene.noise(4, *size), 1)),
        "one": raised(lambda: nano.sample(model, scene.noise(1, *size), 1)),
        "two": raised(lambda: nano.sample(model, scene.noise(2, *size), 1)),
    }
    nano.positive = area
    results["area"] = raised(lambda: nano.sample(model, scene.noise(2, *size), 1))
    return results


def check_sizes(_out: Path) -> Any:
    nano, noise = scene.Nano(), scene.noise()
    height, width = scene.HEIGHT * scene.FACTOR, scene.WIDTH * scene.FACTOR

    def sampled(image: torch.Tensor) -> torch.Tensor:
        return nano.sample(nano.guided(image), noise, 2)

    twice = scene.pictures(1, 1, 2 * scene.HEIGHT, 2 * scene.WIDTH)
    # A little larger than the latent, as core's VAE Encode is given it and crops it.
    larger = scene.pictures(1, 1, scene.HEIGHT + 1, scene.WIDTH + 1)[:, : height + 3, : width + 2]
    cropped = larger[:, 1 : 1 + height, 1 : 1 + width]
    encoded = nano.vae.vae_encode_crop_pixels(larger)
    by_core = comfy.utils.common_upscale(twice.movedim(-1, 1), width, height, "lanczos", "disabled").movedim(1, -1)
    return {
        "twice": torch.equal(sampled(twice), sampled(by_core)),
        "cropped": torch.equal(sampled(larger), sampled(cropped)),
        "as VAE Encode": torch.equal(encoded, cropped),
        "colours": raised(lambda: PGPDiffSRColorFix.execute(twice, cropped, "wavelet")),
        "colours of another shape": raised(lambda: PGPDiffSRColorFix.execute(twice, twice.transpose(1, 2), "wavelet")),
        "rounded": raised(lambda: sampled(scene.pictures(1, 1, 33, 25))),
        "another shape": raised(lambda: sampled(scene.pictures(1, 1, 17, 17))),
        "turned": raised(lambda: sampled(scene.pictures(1, 1, 13, 17))),
        "another shape, in tiles": raised(
            lambda: nano.sample(tile_model(nano.guided(scene.pictures(1, 1, 17, 17)), 64, 16), noise, 1)
        ),
    }


def check_two_samplers(_out: Path) -> Any:
    """One guided MODEL in two samplers of one graph, for latents of two sizes, and two guided MODELs in turn."""
    nano = scene.Nano()
    image, other = scene.pictures(1), scene.pictures(2)
    shared = nano.guided(image)
    small, large = scene.noise(), scene.noise(1, 2 * scene.HEIGHT, 2 * scene.WIDTH)
    first, second = nano.sample(shared, small, 2), nano.sample(shared, large, 2)
    third = nano.sample(nano.guided(other), small, 2)
    fresh = scene.Nano()
    expected = [
        fresh.sample(fresh.guided(image), small, 2),
        fresh.sample(fresh.guided(image), large, 2),
        fresh.sample(fresh.guided(other), small, 2),
        fresh.sample(fresh.guided(image), small, 2),
    ]
    again = nano.sample(shared, small, 2)
    return [torch.equal(a, b) for a, b in zip((first, second, third, again), expected, strict=True)]


def check_latents_taken_apart(_out: Path) -> Any:
    """What calls a guided MODEL for some latents, or for a piece of them, without saying which."""
    nano = Averages()
    image, noise = scene.pictures(1, 2), scene.noise(2)

    def halves(dim: int) -> Any:
        def wrapper(apply: Any, args: dict[str, Any]) -> torch.Tensor:
            c = {k: v for k, v in args["c"].items() if k == "transformer_options"}
            rest = {k: v for k, v in args["c"].items() if k not in c}
            parts = []
            for i, x in enumerate(args["input"].chunk(2, dim)):
                some = {k: v.chunk(2)[i] if dim == 0 else v for k, v in rest.items()}
                parts.append(apply(x, args["timestep"][: len(x)], **some, **c))
            return torch.cat(parts, dim)

        return wrapper

    def run(dim: int) -> list[str]:
        model = nano.guided(image).clone()
        model.set_model_unet_function_wrapper(halves(dim))
        return raised(lambda: nano.sample(model, noise, 1))

    return {
        "whole": seen(nano, nano.guided(image), image, noise).off,
        "batch": run(0),
        "width": run(3),
    }
