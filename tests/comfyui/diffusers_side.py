"""The same runs as in ``checks/``, outside ComfyUI, in this Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import trained_lora

from pgp_core.codecs import pixel as pixel_codec
from pgp_core.conditioning.conditioning import Conditioning
from pgp_core.files.checkpoints import read_safetensors
from pgp_core.restorers.nano import model as nano
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.sampling.denoiser import Denoiser
from pgp_core.sampling.euler import euler, restore_once
from pgp_core.sampling.options import SampleOptions
from pgp_core.unet import lora

SEED, STEPS, CFG = 5, 4, 1.5


def _pipeline(tensors: dict[str, torch.Tensor]) -> NanoRestorer:
    """Nano with the PEAM weights that the check redrew, in the dtype that the tensors have."""
    dtype = tensors["image"].dtype
    pipeline = NanoRestorer.load(one_step=False, dtype=dtype)
    pipeline.guidance.to(dtype)
    peam = {k.removeprefix("peam."): v for k, v in tensors.items() if k.startswith("peam.")}
    pipeline.guidance.peam.load_state_dict(peam)
    return pipeline


def both(run: Callable[[dict[str, torch.Tensor]], torch.Tensor], tensors: dict[str, torch.Tensor]) -> Both:
    """A run in float64 and in float32."""
    return Both(run({k: v.double() for k, v in tensors.items()}), run(tensors))


@dataclass(frozen=True)
class Both:
    """One run: exact, and with float32's rounding."""

    exact: torch.Tensor
    rounded: torch.Tensor


def _denoiser(pipeline: NanoRestorer, image: torch.Tensor, options: SampleOptions) -> Denoiser:
    features = pipeline.guidance.features(image.movedim(-1, 1))
    return Denoiser(pipeline.unet, pipeline.guidance, features, pipeline.positive, pipeline.negative, options)


@torch.inference_mode()
def sampled(tensors: dict[str, torch.Tensor], start: float = 0.0, end: float = 1.0) -> torch.Tensor:
    """The latent of ``check_parity`` and ``check_range``, scaled as the UNet has it."""
    options = SampleOptions(steps=STEPS, cfg=CFG, seed=SEED, start_percent=start, end_percent=end)
    pipeline = _pipeline(tensors)
    denoiser = _denoiser(pipeline, tensors["image"], options)
    return euler(
        denoiser, torch.zeros_like(tensors["noise"]), pipeline.prediction, options, latent_std=pipeline.latent_std
    )


@torch.inference_mode()
def restored_once(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """The latent of ``check_one_step``, scaled as the UNet has it."""
    pipeline = _pipeline(tensors)
    s1, _ = read_safetensors(nano.FOLDER / nano.S1_FILE)
    lora.merge(pipeline.unet, s1)
    denoiser = _denoiser(pipeline, tensors["image"], SampleOptions(cfg=1.0))
    z_l = pixel_codec.encode(tensors["image"].movedim(-1, 1)) * nano.SCALE
    return restore_once(denoiser, z_l, nano.S1_TIMESTEP)


def unet() -> Any:
    """Nano's UNet, pruned as it ships."""
    return NanoRestorer.load(one_step=False).unet


@torch.inference_mode()
def by_peft(x: torch.Tensor) -> torch.Tensor:
    """The output of ``check_lora_by_peft``: PEFT's own layers in our UNet."""
    pipeline = NanoRestorer.load(one_step=False)
    return called(trained_lora.adapted(pipeline.unet), x, nano.S1_TIMESTEP, pipeline.positive)


def called(unet: Any, x: torch.Tensor, timestep: int, prompt: Conditioning) -> torch.Tensor:
    """The UNet, with nothing around it."""
    n = len(x)
    added = {"text_embeds": prompt.pooled.expand(n, -1), "time_ids": prompt.time_ids.repeat(n, 1)}
    result: torch.Tensor = unet(
        x,
        torch.full((n,), float(timestep)),
        encoder_hidden_states=prompt.context.expand(n, -1, -1),
        added_cond_kwargs=added,
        return_dict=False,
    )[0]
    return result
