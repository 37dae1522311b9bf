"""What is trained, whatever its size: one interface over nano and SDXL-shaped models, and what they are shown."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..conditioning.conditioning import Conditioning
from ..guidance.module import Guidance
from ..guidance.on_diffusers import guided


@dataclass(frozen=True)
class Sample:
    """One crop.

    Attributes:
        lq: ``(3, H, W)`` float32 in [0, 1]: the degraded crop, enlarged to HQ's size (the canvas).
        hq: ``(3, H, W)`` float32 in [0, 1].
        caption: empty where there is none.
        original: height and width of the picture that it was cut from, HQ pixels.
        corner: top and left of the crop in it, HQ pixels.
        small: ``(3, h, w)`` float32 in [0, 1]: the degraded crop before it is enlarged; None where it is not known.
    """

    lq: torch.Tensor
    hq: torch.Tensor
    caption: str = ""
    original: tuple[int, int] = (512, 512)
    corner: tuple[int, int] = (0, 0)
    small: torch.Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Crops of one size; see :class:`Sample`.

    Attributes:
        lq, hq: ``(B, 3, H, W)``.
        captions: B texts.
        original, corner: ``(B, 2)`` integers.
    """

    lq: torch.Tensor
    hq: torch.Tensor
    captions: tuple[str, ...]
    original: torch.Tensor
    corner: torch.Tensor

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Batch:
        """Samples of one size as a batch; serves as ``collate_fn``."""
        return cls(
            torch.stack([s.lq for s in samples]),
            torch.stack([s.hq for s in samples]),
            tuple(s.caption for s in samples),
            torch.tensor([s.original for s in samples]),
            torch.tensor([s.corner for s in samples]),
        )

    def __len__(self) -> int:
        return len(self.captions)

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device."""
        return replace(
            self,
            lq=self.lq.to(device),
            hq=self.hq.to(device),
            original=self.original.to(device),
            corner=self.corner.to(device),
        )


class Subject(torch.nn.Module):
    """A restorer in training: diffusers' UNet, guidance, and the way between pictures and latents.

    Attributes:
        unet: diffusers' ``UNet2DConditionModel``, full or pruned.
        guidance: None where the picture comes in through the latent alone.
        prediction: what the UNet outputs, see :func:`pgp_core.schedule.target`.
        negatives: whether the negative conditioning's target is the LQ canvas (nano), not HQ (a dropped prompt).
        s1_timestep: at which one step is made.
    """

    unet: torch.nn.Module
    guidance: Guidance | None
    prediction: str
    negatives: bool
    s1_timestep: int

    @abstractmethod
    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` in [0, 1] to latents, scaled as the UNet takes them; without gradient."""

    @abstractmethod
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Latents to ``(B, 3, H, W)``, [0, 1] but not clamped; gradients pass."""

    @abstractmethod
    def denoised(self, z_lq: torch.Tensor, z_hq: torch.Tensor) -> torch.Tensor:
        """What diffusion adds noise to: HQ's latent, or the residual ``z_hq - z_lq`` (nano); gradients pass."""

    @abstractmethod
    def conditioning(self, batch: Batch, positive: torch.Tensor) -> Conditioning:
        """Each sample's caption where ``positive``, ``(B,)`` booleans, is True, else the negative prompt."""

    def forward(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        lq: torch.Tensor,
        conditioning: Conditioning,
        base: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The UNet's output in float32.

        Args:
            x: ``(B, C, h, w)`` latents as the UNet takes them.
            t: ``(B,)`` timesteps.
            lq: ``(B, 3, H, W)`` canvas in [0, 1].
            base: ``(B,)`` booleans, which samples have the LQ added at ``conv_in``, where the guidance does that; all
                of them by default.
        """
        added = {"text_embeds": conditioning.pooled, "time_ids": conditioning.time_ids}
        with self._guided(lq, base):
            out: torch.Tensor = self.unet(
                x, t, encoder_hidden_states=conditioning.context, added_cond_kwargs=added, return_dict=False
            )[0]
        return out.float()

    def _guided(self, lq: torch.Tensor, base: torch.Tensor | None) -> AbstractContextManager[Any]:
        if self.guidance is None:
            return nullcontext()
        features = self.guidance.features(lq)
        if base is not None:
            keep = base.to(lq.device).view(-1, 1, 1, 1)
            sites = self.guidance.spec.sites
            features = tuple(f * keep if s.is_base else f for f, s in zip(features, sites, strict=True))
        return guided(self.unet, self.guidance, features)

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return next(self.unet.parameters()).device
