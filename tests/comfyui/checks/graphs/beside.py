"""Core's nodes beside guidance: control, inpainting, guiders, hooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy.controlnet
import comfy.hooks
import comfy.model_patcher
import comfy.sample
import comfy.samplers
import comfy.t2i_adapter.adapter
import comfy.utils
import torch
from comfy_extras.nodes_custom_sampler import CFGGuider, DualCFGGuider, DualModelGuider
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from comfy_extras.nodes_model_advanced import RescaleCFG
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfy_extras.nodes_perpneg import PerpNeg, PerpNegGuider
from comfy_extras.nodes_sag import SelfAttentionGuidance
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.pgp_core.guidance.module import Guidance
from pgp_pack.pgp_core.restorers.nano import model as nano_files

import nodes

from .. import scene
from ..raised import raised
from .averages import Averages, seen

STEPS = 2


def _nothing(nano: scene.Nano, noise: torch.Tensor) -> Callable[[Any], torch.Tensor]:
    return lambda model: nano.sample(model, noise, STEPS)


def _run(guider: Any, noise: torch.Tensor) -> torch.Tensor:
    sampling = guider.model_patcher.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", STEPS)
    sampler = comfy.samplers.ksampler("euler")
    result: torch.Tensor = guider.sample(
        noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=scene.SEED
    )
    return result


def check_guiders(_out: Path) -> Any:
    nano = Averages()
    image, noise = scene.pictures(1, 2), scene.noise(2)
    guided = nano.guided(image)
    positive, negative = nano.positive, nano.negative
    models = {
        "rescaled CFG": RescaleCFG().patch(guided, 0.7)[0],
        "self-attention guidance": SelfAttentionGuidance.execute(guided, 0.5, 2.0).args[0],
        "perp-neg": PerpNeg.execute(guided, negative, 1.0).args[0],
    }
    results: dict[str, Any] = {}
    for name, model in models.items():
        found = seen(nano, model, image, noise, sample=_nothing(nano, noise))
        results[name] = [found.off, found.calls]
    guiders: dict[str, Callable[[Any], Any]] = {
        "perp-neg guider": lambda m: PerpNegGuider.execute(m, positive, negative, negative, 3.0, 1.0).args[0],
        "dual CFG": lambda m: DualCFGGuider.execute(m, positive, positive, negative, 2.0, 3.0, "regular").args[0],
        "nested CFG": lambda m: DualCFGGuider.execute(m, positive, positive, negative, 2.0, 3.0, "nested").args[0],
        "dual model": lambda m: DualModelGuider.execute(m, positive, scene.CFG, m, negative).args[0],
        "dual model, negative unguided": lambda m: DualModelGuider.execute(
            m, positive, scene.CFG, nano.model, negative
        ).args[0],
    }
    for name, guider in guiders.items():
        found = seen(nano, guided, image, noise, sample=lambda m, guider=guider: _run(guider(m), noise))
        results[name] = [found.off, found.calls]
    one = _run(CFGGuider.execute(guided, positive, negative, scene.CFG).args[0], noise)
    two = _run(guiders["dual model"](guided), noise)
    results["dual model is CFG"] = scene.difference(one, two)
    other = nano.guided(image)
    results["refused"] = {
        "negative guided": raised(
            lambda: _run(DualModelGuider.execute(nano.model, positive, 2.0, other, negative).args[0], noise)
        ),
        "guided twice": raised(
            lambda: _run(DualModelGuider.execute(guided, positive, 2.0, other, negative).args[0], noise)
        ),
        "devices": raised(lambda: nano.sample(_spread(guided), noise, 1)),
        "devices, tiled": raised(lambda: nano.sample(_spread(tile_model(nano.model)), noise, 1)),
    }
    results["afterwards"] = torch.equal(
        _run(CFGGuider.execute(guided, positive, negative, scene.CFG).args[0], noise), one
    )
    return results


def _spread(model: Any) -> Any:
    copy = model.clone()
    copy.model_options["multigpu_clones"] = {}
    return copy


def check_hooks(_out: Path) -> Any:
    """A LoRA by conditioning hooks is the LoRA on the MODEL, guided or not."""
    nano = scene.Nano()
    image, noise = scene.pictures(1, 2), scene.noise(2)
    file = nano_files.FOLDER / nano_files.S1_FILE
    hook = comfy.hooks.create_hook_lora(comfy.utils.load_torch_file(str(file), safe_load=True), 1.0, 0.0)
    results: dict[str, float] = {}
    for name, model in {
        "guided": nano.guided(image),
        "guided in parts": tile_model(nano.guided(image), frames=1),
        "plain": nano.model,
    }.items():
        expected = nano.sample(scene.with_lora(model, file)[0], noise, STEPS)
        without = nano.sample(model, noise, STEPS)
        positive, negative = nano.positive, nano.negative
        nano.positive, nano.negative = (
            comfy.hooks.set_hooks_for_conditioning(c, hook) for c in (nano.positive, nano.negative)
        )
        try:
            results[name] = scene.difference(nano.sample(model, noise, STEPS), expected)
        finally:
            nano.positive, nano.negative = positive, negative
        results[f"{name}, LoRA matters"] = scene.difference(without, expected)
        results[f"{name}, afterwards"] = scene.difference(nano.sample(model, noise, STEPS), without)
    return results


def check_adapter_beside_guidance(_out: Path) -> Any:
    """Core's T2I-Adapter, narrow and random, beside guidance, with tiles and areas."""
    nano = Averages()
    height, width = 33, 29
    image, noise = scene.pictures(1, 1, height, width), scene.noise(1, height, width)
    unet = nano.model.model.model_config.unet_config
    channels = [unet["model_channels"] * n for n in (*unet["channel_mult"], unet["channel_mult"][-1])]
    torch.manual_seed(0)
    network = comfy.t2i_adapter.adapter.Adapter([channels[0], *channels[1:]], 1, 3 * 256, 3, False, True, True)
    for p in network.parameters():
        p.mul_(3)
    adapter = comfy.controlnet.T2IAdapter(network.eval(), 3, 8, "nearest-exact")
    hint = scene.pictures(3, 1, 2 * height, 2 * width)
    plain = nano.positive, nano.negative
    with_hint = nodes.ControlNetApplyAdvanced().apply_controlnet(*plain, adapter, hint, 1.0, 0.0, 1.0)

    def sample(model: Any, controlled: bool = True) -> torch.Tensor:
        nano.positive, nano.negative = with_hint if controlled else plain
        try:
            return nano.sample(model, noise, STEPS)
        finally:
            nano.positive, nano.negative = plain

    guided, strange = nano.guided(image), nano.guided(image, 0.0)
    both = sample(guided)
    nano.positive, nano.negative = with_hint
    tiled = tile_model(guided, 16 * scene.FACTOR, 8 * scene.FACTOR)
    found = seen(nano, guided, image, noise)
    found_in_tiles = seen(nano, tiled, image, noise)
    nano.positive = nodes.ConditioningSetArea().append(with_hint[0], 160, 128, 8, 40, 1.0)[0]
    found_in_area = seen(nano, guided, image, noise)
    nano.positive, nano.negative = plain
    return {
        "off": [found.off, found_in_tiles.off, found_in_area.off],
        "areas": sorted(set(found_in_area.places)),
        "unguided": scene.difference(sample(strange), sample(nano.model)),
        "control matters": scene.difference(both, sample(guided, False)),
        "guidance matters": scene.difference(both, sample(nano.model)),
        "one tile": torch.equal(sample(tile_model(guided)), both),
    }


class _Boxes(torch.nn.Module):
    """As far as core asks GLIGEN: a patch for attention, here one that changes nothing."""

    def set_position(self, *_: Any) -> Any:
        return lambda x, _options: x

    set_empty = set_position


def check_gligen(_out: Path) -> Any:
    """Boxes in a picture: for the whole of it only."""
    nano = Averages()
    image, noise = scene.pictures(1, 1, 33, 29), scene.noise(1, 33, 29)
    cpu = torch.device("cpu")
    boxes = comfy.model_patcher.ModelPatcher(_Boxes(), cpu, cpu)
    context, extra = nano.positive[0]
    nano.positive = [[context, {**extra, "gligen": ("position", boxes, [(context[0, :1], 8, 8, 0, 0)])}]]
    guided = nano.guided(image)
    return {
        "off": seen(nano, guided, image, noise).off,
        "one tile": raised(lambda: nano.sample(tile_model(guided), noise, 1)),
        "tiles": raised(lambda: nano.sample(tile_model(guided, 16 * scene.FACTOR, 8 * scene.FACTOR), noise, 1)),
    }


def check_deep_shrink(_out: Path) -> Any:
    """Coarser features of the whole picture meet those of the picture as small as that."""
    nano = Averages()
    image, noise = scene.pictures(1, 1, 34, 26), scene.noise(1, 34, 26)
    model = PatchModelAddDownscale.execute(nano.guided(image), 2, 2.0, 0.0, 0.5, True, "bicubic", "bicubic").args[0]
    met: list[torch.Tensor] = []
    fuse = Guidance.fuse

    def noting(self: Any, site: int, h: torch.Tensor, f: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if site == 1:
            met.append(f[0])
        return fuse(self, site, h, f, *args, **kwargs)

    with replace.object(Guidance, "fuse", noting):
        result = nano.sample(model, noise, 4, 1.0)
    low, high = nano.patch.model.spec.input_range
    expected, whole = {}, image.movedim(-1, 1)
    for canvas in (whole, comfy.utils.common_upscale(whole, 8 * 7, 8 * 9, "lanczos", "disabled")):
        means = torch.nn.functional.avg_pool2d(canvas[0], 8) * (high - low) + low
        expected[means.shape[-2]] = means[torch.arange(met[0].shape[0]) % 3]
    return {
        "finite": bool(result.isfinite().all()),
        "heights": [f.shape[-2] for f in met],
        "off": max(scene.difference(f, expected[f.shape[-2]]) for f in met),
    }


def check_inpainting(_out: Path) -> Any:
    """InpaintModelConditioning and Differential Diffusion on a guided model that takes no picture beside its latent."""
    nano = Averages()
    height, width = 34, 26
    image = scene.pictures(1, 1, height, width)
    noise = scene.noise(1, height, width)
    mask = torch.zeros(1, height * scene.FACTOR, width * scene.FACTOR)
    mask[:, 40:104, 24:88] = 1
    positive, negative, latent = nodes.InpaintModelConditioning().encode(
        nano.positive, nano.negative, image, nano.vae, mask, True
    )

    def sample(model: Any) -> torch.Tensor:
        # fmt: off
        result: torch.Tensor = comfy.sample.sample(
            model, noise, STEPS, scene.CFG, "euler", "ddim_uniform", positive, negative, latent["samples"],
            noise_mask=latent["noise_mask"], seed=scene.SEED, disable_pbar=True,
        )
        # fmt: on
        return result

    guided = nano.guided(image)
    tiled = tile_model(guided, 16 * scene.FACTOR, 8 * scene.FACTOR)
    whole = sample(guided)
    outside = torch.nn.functional.max_pool2d(mask[:, None], scene.FACTOR)[0, 0] == 0
    results: dict[str, Any] = {
        "off": seen(nano, guided, image, noise, sample=sample).off,
        "kept outside": float((whole - latent["samples"])[..., outside].abs().max()),
        "changed inside": float((whole - latent["samples"])[..., ~outside].abs().max()),
        "one tile": torch.equal(sample(tile_model(guided)), whole),
    }
    in_tiles = sample(tiled)
    results["in tiles, kept outside"] = float((in_tiles - latent["samples"])[..., outside].abs().max())
    results["tiles"] = scene.difference(in_tiles, whole)
    soft = DifferentialDiffusion.execute(guided, 1.0).args[0]
    results["differential"] = float((sample(soft) - latent["samples"])[..., outside].abs().max())
    return results
