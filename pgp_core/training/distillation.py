"""What distillation to one step minimises, as a configuration has it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import torch

from ..errors import ConfigError, TrainingError
from ..progress import Say
from ..restorers.given import Given
from ..restorers.sdxl.loading import find_unet
from ..unet.on_diffusers import build_unet
from .adversarial.adversary import Adversary
from .building import inspect, resolve
from .config import Loss, RunConfig
from .one_step_loss import S1Loss, make_s1_loss
from .perceptual.efficientnet_lite0 import read_weights
from .s1_config import S1LossConfig
from .sdxl_subject import SDXLSubject
from .subject import Subject


def make_loss(config: RunConfig, subject: Subject, say: Say) -> S1Loss:
    """``loss(subject, batch, generator)`` of the stage that is asked for, its score model loaded if it has one.

    Raises:
        PGPError: if the score model is not there, or a library or its weights are missing.
    """
    settings = loss_config(config)
    score = _score(config, subject, say) if settings.resolved().csd else None
    adversary = None
    if config.adversarial is not None:
        adversary = Adversary(config.adversarial, subject.device, config.run.seed)
    return make_s1_loss(settings, subject, score, adversary, config.model.of.grid)


def check_files(config: RunConfig) -> None:
    """What a distillation needs beside its model, before anything large is read.

    Raises:
        PGPError: if the weights of the perceptual measure are not there, or its terms do not fit the adversary.
    """
    if config.s1 is None:
        return
    settings = loss_config(config).resolved()
    if settings.perceptual and "lpips" in (settings.measure or ""):
        from .perceptual.lpips_vgg import find_vgg

        find_vgg(str(settings.vgg or ""))
    if uses_lite0(config):
        read_weights()
    in_picture = settings.perceptual or settings.edges or (settings.space == "picture" and (settings.l1 or settings.l2))
    if config.adversarial is not None and config.adversarial.weights == "pull" and not in_picture:
        raise ConfigError(
            f'{config.source}: adversarial.weights "pull" needs a term that compares pictures, to have a share of its '
            'pull: give s1.perceptual, s1.edges, or s1.l1 with s1.space "picture", or take weights "fixed"'
        )


def uses_lite0(config: RunConfig) -> bool:
    """Whether a distillation looks at EfficientNet-Lite0's features."""
    settings = loss_config(config).resolved()
    heads = config.adversarial is not None and bool(config.adversarial.heads)
    return heads or (bool(settings.perceptual) and "efficientnet-lite0" in (settings.measure or ""))


def score_file(config: RunConfig) -> Path | None:
    """Where the UNet of an SDXL-shaped score model is: the file that is named, None for the one in ``model.sdxl``,
    else the run's base."""
    model = config.model
    assert config.s1 is not None
    if config.s1.score_model:
        return resolve(config, config.s1.score_model)
    own = model.sdxl is not None and (model.sdxl.is_file() or (model.sdxl / "unet").is_dir())
    return None if own or not model.base else resolve(config, model.base)


def loss_config(config: RunConfig) -> S1LossConfig:
    """``[s1]`` as the loss takes it."""
    assert config.s1 is not None
    return S1LossConfig(**{f.name: getattr(config.s1, f.name) for f in fields(S1LossConfig)})


def _score(config: RunConfig, subject: Subject, say: Say) -> Subject:
    """A frozen model over the same latents."""
    assert config.s1 is not None
    name = config.s1.score_model
    device = subject.device
    if isinstance(subject, SDXLSubject):
        found = find_unet(Given(model=score_file(config), base=config.model.sdxl), say)
        # Only its forward passes count: half the memory where a card has bfloat16.
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        unet = found.read(device, dtype, build_unet)
        return SDXLSubject(unet, None, subject.vae, subject.prompts, found.info.prediction)
    model = replace(config.model, base=name or "full", plan="", guidance="base", train=("unet",), decoder="")
    other = replace(config, model=model, s1=None, adversarial=None, loss=Loss())
    object.__setattr__(other, "source", config.source)
    object.__setattr__(other, "root", config.root)
    try:
        return inspect(other, say).load(device)
    except TrainingError as e:
        raise TrainingError(f"the score model of csd: {e}") from None
