"""Nodes of core's that tell a tile something beside its latent: masks, dtypes, other vectors, hypernetworks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch as replace

import comfy.sample
import comfy.samplers
import folder_paths
import torch
from comfy.ldm.modules.encoders.noise_aug_modules import CLIPEmbeddingNoiseAugmentation
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from comfy_extras.nodes_hypernetwork import HypernetworkLoader
from comfy_extras.nodes_model_advanced import ModelComputeDtype
from pgp_pack.nodes.comfy_backbone import tile_model

import nodes

from .. import scene
from ..raised import raised
from . import alone, stand_ins
from .setting import wrapped

STEPS = 2
SIDE, OVERLAP = alone.SIDE * scene.FACTOR, alone.OVERLAP * scene.FACTOR


def _tiled(model: Any, **options: Any) -> Any:
    return tile_model(model, SIDE, OVERLAP, **options)


def check_tiling_noise_masks(_out: Path) -> Any:
    """Set Latent Noise Mask, and Differential Diffusion, with a mask that rises over the picture."""
    nano, noise = scene.Nano(), scene.noise(1, alone.HEIGHT, alone.WIDTH)
    image = scene.pictures(1, 1, alone.HEIGHT, alone.WIDTH)
    model, of_tile = alone.guided(nano, image, noise)
    latent = torch.randn(noise.shape, generator=torch.Generator().manual_seed(8)) * 0.1
    rows, columns = torch.linspace(0, 1, alone.HEIGHT), torch.linspace(0, 0.1, alone.WIDTH)
    mask = (rows[:, None] + columns).clamp(0, 1)[None, None]

    def sample(model: Any, noise: torch.Tensor = noise, latent: torch.Tensor = latent, mask: Any = mask) -> Any:
        # fmt: off
        return comfy.sample.sample(
            model, noise, STEPS, scene.CFG, "euler", "ddim_uniform", nano.positive, nano.negative, latent,
            noise_mask=mask, seed=scene.SEED, disable_pbar=True,
        )
        # fmt: on

    sampling = nano.model.get_model_object("model_sampling")
    times = [float(sampling.timestep(s)) for s in comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", STEPS)[:-1]]
    last = float(sampling.timestep(sampling.sigma_min))

    def hard(step: int) -> torch.Tensor:
        # A place is free from the step on at which there is no more to go than its mask says.
        return (mask >= (times[step] - last) / (times[0] - last)).float()

    def soft(model: Any) -> Any:
        return DifferentialDiffusion.execute(model, 0.7).args[0]

    cases: dict[str, tuple[Callable[[Any], Any], Callable[[int], torch.Tensor]]] = {
        "mask": (lambda m: m, lambda _: mask),
        "differential": (lambda m: DifferentialDiffusion.execute(m, 1.0).args[0], hard),
        "differential, soft": (soft, lambda step: 0.7 * hard(step) + 0.3 * mask),
    }
    plain = sample(_tiled(model), mask=None)
    results: dict[str, Any] = {}
    for name, (act, at) in cases.items():
        expected = alone.sampled(nano, of_tile, noise, STEPS, latent, at)
        for order, got in (("", sample(_tiled(act(model)))), (", behind", sample(act(_tiled(model))))):
            results[name + order] = [scene.difference(got, expected), scene.difference(got, plain)]
        plain = got
    # Each of a batch has its own mask, also where they are sampled one by one.
    two, masks = torch.cat([noise, noise.flip(-1)]), torch.cat([mask, mask.flip(-2)])
    many = sample(soft(_tiled(nano.model, frames=1)), two, torch.cat([latent] * 2), masks)
    each = [sample(soft(_tiled(nano.model)), n[None], latent, m[None]) for n, m in zip(two, masks, strict=True)]
    results["frames"] = [scene.difference(many, torch.cat(each)), scene.difference(many[:1], many[1:])]
    return results


def _regions(nano: Any, noise: torch.Tensor) -> list[float]:
    """Two prompts, each where its mask is, against a MODEL that another wrapper calls tile by tile."""
    words, mask = nano.positive, torch.zeros(1, 96, 64)
    mask[:, :50, :30] = 1

    def by_hand(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        x = args["input"]
        return alone.together([apply(t.crop(x).clone(), args["timestep"], **args["c"]) for t in alone.tiles()])

    def masked(cond: Any, mask: torch.Tensor) -> Any:
        return nodes.ConditioningSetMask().append(cond, mask, "default", 1.0)[0]

    plain = nano.sample(_tiled(nano.model), noise, STEPS)
    other = [[words[0][0] * -1, words[0][1]]]
    nano.positive = masked(words, mask) + masked(other, 1 - mask)
    try:
        got = nano.sample(_tiled(nano.model), noise, STEPS)
        expected = nano.sample(wrapped(nano.model, by_hand), noise, STEPS)
    finally:
        nano.positive = words
    return [scene.difference(got, expected), scene.difference(got, plain)]


def _hypernetwork(folder: Path) -> str:
    """A file as hypernetworks are found: for widths of keys, two small networks, one for keys, one for values."""
    generator = torch.Generator().manual_seed(4)
    nano = scene.Nano()
    unet = nano.model.model.diffusion_model
    widths = {m.to_k.in_features for n, m in unet.named_modules() if n.endswith(("attn1", "attn2"))}
    widths |= {m.to_k.out_features for n, m in unet.named_modules() if n.endswith(("attn1", "attn2"))}
    content: dict[Any, Any] = {"activation_func": "relu", "is_layer_norm": False}
    for width in widths:
        content[width] = []
        for _ in range(2):
            one = torch.randn(8, width, generator=generator), torch.randn(8, generator=generator)
            two = torch.randn(width, 8, generator=generator) * 0.2, torch.zeros(width)
            content[width].append({"0.weight": one[0], "0.bias": one[1], "1.weight": two[0], "1.bias": two[1]})
    torch.save(content, folder / "narrow.pt")
    return "narrow.pt"


def check_tiling_beside(_out: Path) -> Any:
    """Each a change to core's MODEL or to its conditionings, against tiles alone with the same, with guidance."""
    nano, noise = scene.Nano(), scene.noise(1, alone.HEIGHT, alone.WIDTH)
    model, of_tile = alone.guided(nano, scene.pictures(1, 1, alone.HEIGHT, alone.WIDTH), noise)
    plain = nano.sample(_tiled(model), noise, STEPS)
    results: dict[str, Any] = {}

    def compare(name: str, act: Callable[[Any], Any], steps: int = STEPS) -> None:
        expected = alone.sampled(nano, lambda tile: act(of_tile(tile)), noise, steps)
        before = plain if steps == STEPS else nano.sample(_tiled(model), noise, steps)
        for order, tiled in (("", _tiled(act(model))), (", behind", act(_tiled(model)))):
            got = nano.sample(tiled, noise, steps)
            results[name + order] = [scene.difference(got, expected), scene.difference(got, before)]

    with tempfile.TemporaryDirectory() as folder:
        name = _hypernetwork(Path(folder))
        with replace.dict(folder_paths.folder_names_and_paths, {"hypernetworks": ([folder], {".pt"})}):
            compare("HypernetworkLoader", lambda model: HypernetworkLoader.execute(model, name, 1.0).args[0])
    # One step: a second one would begin from another rounding.
    compare("ModelComputeDtype", lambda model: ModelComputeDtype().patch(model, "bf16")[0], steps=1)

    def overflows(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        out: torch.Tensor = apply(args["input"], args["timestep"], **args["c"])
        return out if apply.__self__.get_dtype_inference() == torch.float32 else out * torch.inf

    half = ModelComputeDtype().patch(wrapped(model, overflows), "fp16")[0]
    results["overflow"] = [scene.difference(nano.sample(_tiled(half), noise, STEPS), plain), 1.0]
    results["regions"] = _regions(nano, noise)

    ((_, entry),) = nano.positive
    width = entry["pooled_output"].shape[-1] // 2
    schedule = {"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
    picture = torch.randn(1, width, generator=torch.Generator().manual_seed(6))
    seen = SimpleNamespace(image_embeds=picture)

    def as_wide_as_nano(model: Any) -> Any:
        # What core makes of a picture's embedding is as wide as SDXL's.
        model.model.noise_augmentor = CLIPEmbeddingNoiseAugmentation(noise_schedule_config=schedule, timestep_dim=width)
        return model

    words = nano.positive
    nano.positive = nodes.unCLIPConditioning().apply_adm(words, seen, 1.0, 0.3)[0]
    compare("unCLIPConditioning", as_wide_as_nano)
    nano.positive = words
    return results


def check_tiling_masks_of_patches(_out: Path) -> Any:
    """Patches of attention that lay a mask over what they see, which they take for the whole picture."""
    nano, noise = scene.Nano(), scene.noise(1, alone.HEIGHT, alone.WIDTH)
    left = torch.zeros(1, 96, 64)
    left[..., :32] = 1
    patched = {
        "replaced": stand_ins.attention(nano.model, left),
        "couple": stand_ins.couple(nano.model, [left, 1 - left * 0.5]),
    }
    results: dict[str, Any] = {}
    for name, model in patched.items():
        results[name] = raised(lambda model=model: nano.sample(_tiled(model), noise, STEPS))
        results[f"{name}, one tile"] = scene.difference(
            nano.sample(tile_model(model), noise, STEPS), nano.sample(model, noise, STEPS)
        )
    # A mask that says the same of every place is in nobody's way.
    even = nano.sample(_tiled(stand_ins.attention(nano.model, torch.ones(1, 96, 64))), noise, STEPS)
    results["even"] = scene.difference(even, nano.sample(_tiled(stand_ins.attention(nano.model)), noise, STEPS))
    results["guided"] = raised(
        lambda: nano.sample(
            _tiled(stand_ins.couple(nano.guided(scene.pictures(1, 1, alone.HEIGHT, alone.WIDTH)), [left])), noise, 1
        )
    )
    return results
