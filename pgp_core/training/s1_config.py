"""What S1's distillation minimises, and the settings that are named: the paper's, PiSA-SR's, nano's."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import PGPError
from ..number import number
from ..restorers.nano import model as nano
from .perceptual import check_measure

#: Where ``l1`` and ``l2`` compare.
SPACES = ("picture", "latent")
_WEIGHTS = ("l1", "l2", "edges", "perceptual", "csd", "shifted")


@dataclass(frozen=True)
class S1LossConfig:
    """Terms of the one-step loss. What is None is as the preset has it for the stage.

    Attributes:
        preset: a key of :data:`PRESETS`.
        stage: 1 or 2, of the preset.
        l1, l2: weights of mean absolute and mean squared error.
        space: where those two compare: ``"picture"``, in [-1, 1] and not clamped, or ``"latent"``, scaled as the
            UNet has it. A latent needs no decoding.
        edges: weight of the mean absolute error of the picture's Haar detail, in [-1, 1], at steps of 1, 2 and
            4 pixels. A plain pixel loss does not mind that errors change from one latent position to the next,
            which is seen as a grid.
        perceptual: weight of ``measure``.
        measure: see :mod:`pgp_core.training.perceptual`.
        vgg: file of the weights that the measure lpips needs; None for the place where PyTorch keeps them.
        csd: weight of classifier score distillation, see :mod:`pgp_core.training.csd`; it takes a score model.
        csd_guidance: classifier-free guidance scale of the score model.
        csd_from, csd_to: between which shares of the timesteps it is asked, 0 to 1.
        shifted: weight of the loss between two passes, see :mod:`pgp_core.training.adversarial.shifted`; it is asked in
            every second step, which takes another pass.
        null_prompt: share of samples whose prompt is dropped for the student (its negative prompt, mostly an empty
            one, takes the place), so that it works without one. The score model is always told. Models to whom the
            negative prompt means the LQ canvas, such as nano, keep theirs.
        timestep: at which the one step is made, 0 to 999; None for the model's own.
    """

    preset: str = "paper"
    stage: int = 1
    l1: float | None = None
    l2: float | None = None
    space: str | None = None
    edges: float | None = None
    perceptual: float | None = None
    measure: str | None = None
    vgg: Path | str | None = None
    csd: float | None = None
    csd_guidance: float | None = None
    csd_from: float | None = None
    csd_to: float | None = None
    shifted: float | None = None
    null_prompt: float | None = None
    timestep: int | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise PGPError(f"preset is {', '.join(PRESETS)}, not {self.preset!r}")
        if self.stage not in (1, 2):
            raise PGPError(f"stage is 1 or 2, not {self.stage!r}")
        if self.space not in (None, *SPACES):
            raise PGPError(f"space is {' or '.join(SPACES)}, not {self.space!r}")
        if self.measure is not None:
            check_measure(self.measure)
        for name in (*_WEIGHTS, "csd_guidance"):
            value = getattr(self, name)
            if value is not None:
                number(value, f"{name} must be", 0)
        for name in ("csd_from", "csd_to", "null_prompt"):
            value = getattr(self, name)
            if value is not None:
                number(value, f"{name} must be", 0, 1)
        if self.timestep is not None:
            number(self.timestep, "timestep must be", 0, 999, whole=True)

    def resolved(self) -> S1LossConfig:
        """The same with everything that was None as the preset has it.

        Raises:
            PGPError: if no term has a weight, or the timesteps of CSD are none.
        """
        base: dict[str, Any] = {**_UNSAID, **PRESETS[self.preset][self.stage - 1].loss}
        own = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        full = replace(self, **{**base, **own})
        # Two passes that agree need not be right.
        needed = [name for name in _WEIGHTS if name != "shifted"]
        if not any(getattr(full, name) for name in needed):
            raise PGPError(f"no term has a weight: give one of {', '.join(needed)}")
        if round(full.csd_from * 1000) >= round(full.csd_to * 1000):  # type: ignore[operator]
            raise PGPError(f"csd_from must be below csd_to, not {full.csd_from} to {full.csd_to}")
        return full


@dataclass(frozen=True)
class S1Stage:
    """One stage as published.

    Attributes:
        loss: fields of :class:`S1LossConfig`.
        steps: optimiser steps.
        rank, alpha: of the LoRA; its scale is ``alpha / rank``.
        lr: peak learning rate.
        schedule: ``"constant"`` or ``"cosine"``, after ``warmup`` steps.
        batch: samples a step, over all devices and accumulations.
        crop: side of the HQ crops, pixels.
        second_lora: whether the stage trains a LoRA of its own beside the first stage's, which stays as it is.
    """

    loss: dict[str, Any]
    steps: int
    rank: int = 16
    alpha: int = 16
    lr: float = 5e-5
    schedule: str = "constant"
    warmup: int = 500
    weight_decay: float = 1e-2
    batch: int = 16
    crop: int = 512
    second_lora: bool = False


#: PiSA-SR's, where a preset does not say otherwise.
_UNSAID: dict[str, Any] = {
    "l1": 0.0,
    "l2": 0.0,
    "space": "picture",
    "edges": 0.0,
    "perceptual": 0.0,
    "measure": "lpips",
    "csd": 0.0,
    "csd_guidance": 7.5,
    "csd_from": 0.02,
    "csd_to": 0.5,
    "shifted": 0.0,
    "null_prompt": 0.5,
}

#: Both stages of each. The paper gives terms, steps, rank, learning rate and batch; its weights, guidance and
#: timesteps are PiSA-SR's, which it follows. PiSA-SR does not say how long its second stage is. Nano's weights are
#: in units of its latent, nano.SCALE times a picture in [-1, 1]; its second stage's were chosen on synthetic pictures,
#: where more CSD sharpens and costs both PSNR and HaarPSI.
PRESETS: dict[str, tuple[S1Stage, S1Stage]] = {
    "paper": (
        S1Stage({"l2": 1.0, "perceptual": 2.0}, steps=4_000),
        S1Stage({"perceptual": 2.0, "csd": 1.0}, steps=10_000),
    ),
    "pisa-sr": (
        S1Stage({"l2": 1.0}, steps=4_000, rank=4, alpha=8),
        S1Stage({"l2": 1.0, "perceptual": 2.0, "csd": 1.0}, steps=10_000, rank=4, alpha=8, second_lora=True),
    ),
    "nano": (
        S1Stage(
            {"l1": nano.SCALE, "edges": 0.25 * nano.SCALE, "null_prompt": 0.0},
            steps=2_000,
            lr=6e-4,
            schedule="cosine",
            warmup=100,
            batch=8,
            crop=128,
        ),
        S1Stage(
            {
                "l1": 0.25 * nano.SCALE,
                "edges": 0.125 * nano.SCALE,
                "perceptual": 40.0,
                "measure": "haarpsi+ms-ssim",
                "csd": 0.03,
                "csd_guidance": 1.5,
                "null_prompt": 0.0,
            },
            steps=2_000,
            lr=2e-4,
            schedule="cosine",
            warmup=100,
            batch=8,
            crop=128,
        ),
    ),
}
