"""What One Step is connected to, looked at when it is sampled: each wrong wire is a sentence, no wrong picture."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider

from ...pgp_core.errors import PGPError
from ...pgp_core.number import number
from ...pgp_core.restorers.nano import model as nano
from .files import opened
from .noise_levels import timestep_of
from .records import record_of

log = logging.getLogger(__name__)

NAME = "PGP-DiffSR One Step"
#: Widths by which UNets of one latent are told apart.
_WIDTHS = ("in_channels", "model_channels", "context_dim", "adm_in_channels")
#: Where nano's S1 LoRA is looked at.
_KEY, _LORA_KEY = "diffusion_model.input_blocks.0.0.weight", "lora_unet_conv_in.lora_down.weight"


def family(model: ModelPatcher) -> tuple[Any, ...]:
    """What MODELs share that one node's sampler serves: the latent, and the UNet's widths."""
    config = getattr(getattr(model.model, "model_config", None), "unet_config", {})
    return (type(model.model.latent_format), *(config.get(name) for name in _WIDTHS))


def check_wires(guider: CFGGuider, denoise: Any, mask: torch.Tensor | None, kind: tuple[Any, ...]) -> None:
    """The MODEL that is sampled, and noise and mask that come with it.

    Args:
        guider: core's, which knows the MODEL.
        denoise: what core gives a sampler to call.
        kind: :func:`family` of the MODEL that the node had.

    Raises:
        PGPError: naming what is wrong and the cure.
    """
    model = getattr(guider, "model_patcher", None)
    if model is not None and family(model) != kind:
        raise PGPError(
            f"{NAME} was made from another kind of model than the one that is sampled; connect the sampled MODEL to "
            f"{NAME} too"
        )
    noise = getattr(denoise, "noise", None)
    if noise is not None and bool(noise.any()):
        raise PGPError(
            f"{NAME} adds no noise, but noise was added to its latent; connect Disable Noise to Sampler Custom "
            "Advanced, or turn add_noise off in Sampler Custom"
        )
    # A mask of ones is none, and core's resizing leaves it a little less.
    if mask is not None and bool((mask < 1 - 1e-4).any()):
        raise PGPError(f"{NAME} cannot follow a noise mask: remove Set Latent Noise Mask")
    cfg = getattr(guider, "cfg", 1.0)
    number(cfg, f"{NAME}: CFG must be")
    if cfg != 1:
        log.info("%s: CFG is %g; S1 is distilled without, which is CFG 1", NAME, cfg)


def check_sigmas(sigmas: torch.Tensor, own: float, sampling: Any, timestep: int) -> None:
    """The node's own noise levels, or such that are called the same.

    Raises:
        PGPError: where they are others.
    """
    levels = [float(s) for s in sigmas.flatten()]
    once = len(levels) == 2 and levels[1] == 0 and levels[0] > 0
    if once and (abs(levels[0] - own) <= 1e-4 * own or timestep_of(sampling, levels[0]) == timestep):
        return
    steps = f"{max(0, len(levels) - 1)} steps"
    if len(levels) == 2:
        steps = f"one step from {levels[0]:g} to {levels[1]:g}, not from {own:g} to 0"
    raise PGPError(f"{NAME} takes its own sigmas, and got {steps}; connect its output sigmas to the sampler")


def check_latent(guider: CFGGuider, z_l: torch.Tensor) -> None:
    """The LQ picture's latent.

    Raises:
        PGPError: where it is another model's, empty or not finite.
    """
    latents = guider.inner_model.latent_format
    if z_l.ndim != 4 or z_l.shape[1] != latents.latent_channels:
        shape = " x ".join(map(str, z_l.shape[1:]))
        raise PGPError(
            f"{NAME}: the latent is {shape} and the MODEL has {latents.latent_channels} channels; encode the canvas "
            "with the MODEL's own VAE"
        )
    if not bool(z_l.isfinite().all()):
        raise PGPError(f"{NAME}: the latent is not finite already before the model; see what made it")
    # Nano's latent of a picture that is evenly 0.5 is zero, too.
    if not bool(z_l.any()) and not _is_mid_grey(guider):
        raise PGPError(
            f"{NAME}: the latent is empty; it restores the picture in it, so connect the canvas through VAE Encode"
        )


def check_s1(model: ModelPatcher, timestep: int) -> None:
    """Whether there can be an S1 LoRA, and nano's own is used where it works.

    Raises:
        PGPError: for nano as it is bundled without any LoRA, or with its own at another timestep.
    """
    if _is_bundled_kind(model) and timestep != nano.S1_TIMESTEP and _has_nano_s1(model):
        raise PGPError(f"{NAME}: nano's S1 LoRA was made for timestep {nano.S1_TIMESTEP}, not {timestep}; set that")
    if _is_changed(model):
        return
    if lacks_s1(model):
        raise PGPError(
            f"{NAME}: nano takes one step with its S1 LoRA only; load {Path(nano.S1_FILE).name} onto the MODEL that is "
            "sampled"
        )
    log.warning("%s: the MODEL has no LoRA; unless S1 is part of its file, load the S1 LoRA onto it", NAME)


def lacks_s1(model: ModelPatcher) -> bool:
    """Whether a MODEL is nano from its own file, and nothing was done to its weights."""
    made = getattr(model, "cached_patcher_init", None)
    bundled = bool(_is_bundled_kind(model) and made and Path(str(made[1][0])) == nano.FOLDER / nano.UNET_FILE)
    return bundled and not _is_changed(model)


def _is_bundled_kind(model: ModelPatcher) -> bool:
    return record_of(model).family.bundled


def _is_changed(model: ModelPatcher) -> bool:
    """Whether anything acts on a MODEL's weights: LoRAs, merges, LoRAs by hooks, and such beside the weights."""
    return bool(model.patches or model.hook_patches or model.injections or model.weight_wrapper_patches)


def _has_nano_s1(model: ModelPatcher) -> bool:
    for patch in model.patches.get(_KEY, []):
        weights = getattr(patch[1], "weights", None)
        if isinstance(weights, tuple) and len(weights) > 1 and isinstance(weights[1], torch.Tensor):
            theirs = weights[1].detach().to("cpu", torch.float32)
            if any(theirs.shape == down.shape and torch.equal(theirs, down) for down in _own_s1()):
                return True
    return False


def _own_s1() -> list[torch.Tensor]:
    """Of nano's S1 LoRA, and of its natural one if there is one, what is looked at."""
    found = []
    for name in (nano.S1_FILE, nano.NATURAL_FILE):
        if (nano.FOLDER / name).exists():
            with opened(str(nano.FOLDER / name)) as file:
                found.append(file.read(_LORA_KEY).float())
    return found


def _is_mid_grey(guider: CFGGuider) -> bool:
    from .guidance import guidance_in

    guidance = guidance_in(guider.model_options.get("transformer_options", {}))
    return guidance is not None and bool((guidance.lq == 0.5).all()) and _grey_is_zero(guider)


def _grey_is_zero(guider: Any) -> bool:
    return bool(getattr(guider.model_patcher.get_model_object("latent_format"), "grey_is_zero", False))


__all__ = ["NAME", "check_latent", "check_s1", "check_sigmas", "check_wires", "family", "lacks_s1"]
