"""What the makers of all families make, by the nodes: each file in a graph as the shipped workflows have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.sd
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.canvas import PGPDiffSRCanvas
from pgp_pack.nodes.color_fix import PGPDiffSRColorFix
from pgp_pack.nodes.upscale_graph import LR_START
from pgp_pack.pgp_core.images.reading import open_picture
from safetensors.torch import load_file

from . import scene


def _vae(case: dict[str, Any]) -> Any:
    if case["vae"] is None:
        return comfy_backbone.pixel_vae()
    return comfy.sd.VAE(load_file(case["vae"]), config={"params": case["vae_parameters"]}, dtype=torch.float32)


def _conditioning(case: dict[str, Any], kind: str) -> list[Any]:
    contexts, names = (
        load_file(case["contexts"]),
        ("height", "width", "crop_h", "crop_w", "target_height", "target_width"),
    )
    # Where a file says no sizes, core takes the canvas's.
    sizes = dict(zip(names, case["sizes"], strict=True)) if case["sizes"] else {}
    return [[contexts[f"{kind}.context"].float(), {"pooled_output": contexts[f"{kind}.pooled"].float(), **sizes}]]


def _restored(case: dict[str, Any]) -> tuple[torch.Tensor, str]:
    """The picture, and the family that the MODEL says it is of."""
    model = comfy_backbone.load_unet(case["unet"], {"dtype": torch.float32})
    guidance = comfy_backbone.load_guidance(case["guidance"]) if case["guidance"] else None
    record = comfy_backbone.record_of(model, guidance.model if guidance else None)
    image = open_picture(Path(case["photo"])).rgb().movedim(1, -1)
    canvas, width, height, _ = PGPDiffSRCanvas.execute(image, "scale", case["scale"], 2048, record.family.canvas).args
    for lora in case["loras"]:
        model, _ = scene.with_lora(model, Path(lora))
    if guidance:
        model = comfy_backbone.apply_guidance(model, guidance, canvas, 1.0, 0.0, 1.0)
    vae, positive, negative = _vae(case), _conditioning(case, "positive"), _conditioning(case, "negative")
    latent = vae.encode(canvas)
    recipe, residual = record.recipe(case["one_step"], **case["run"]), record.family.residual
    if recipe.one_step:
        sampler, sigmas = comfy_backbone.one_step_sampler(model, case["timestep"])
        nothing = torch.zeros_like(latent)
        # fmt: off
        sampled = comfy.sample.sample_custom(
            model, nothing, 1.0, sampler, sigmas, positive, positive, latent, disable_pbar=True, seed=0,
        )
        # fmt: on
    else:
        # As :func:`nodes.upscale_graph._by_steps`.
        share = 0.0 if residual or recipe.start == "noise" else LR_START if recipe.start == "lr" else 1.0
        seed = case["run"]["seed"]
        # fmt: off
        sampled = comfy.sample.sample(
            model, comfy.sample.prepare_noise(latent, seed), recipe.steps, recipe.cfg, "euler", "ddim_uniform",
            positive, negative, latent * share, denoise=recipe.noise, seed=seed, disable_pbar=True,
        )
        # fmt: on
        sampled = sampled + latent if residual else sampled
    picture = vae.decode(sampled)
    (fixed,) = PGPDiffSRColorFix.execute(picture, canvas, recipe.color_fix, width, height).args
    return fixed.movedim(-1, 1), record.family.name


def check_restorers(out: Path) -> Any:
    cases = json.loads((out.parent / "files" / "cases.json").read_text())
    results = {name: _restored(case) for name, case in cases.items()}
    scene.save(out, **{name: picture for name, (picture, _) in results.items()})
    return {name: family for name, (_, family) in results.items()}
