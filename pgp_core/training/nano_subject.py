"""Nano in training: residual latents of a pixel unshuffle, and two learned contexts for prompts."""

from __future__ import annotations

import torch

from ..codecs import pixel as pixel_codec
from ..codecs.decoder import PixelDecoder
from ..conditioning.conditioning import Conditioning
from ..guidance.module import Guidance
from ..restorers.nano import model as nano
from ..unet.shape import UNetShape
from .subject import Batch, Subject


class Contexts(torch.nn.Module):
    """Learned conditioning in place of a text encoder: row 0 negative, row 1 positive.

    The negative context is trained towards the LQ canvas, the positive towards HQ (S3Diff's recipe), so
    classifier-free guidance extrapolates from "as degraded as the input" to "clean".
    """

    def __init__(self, context_dim: int, pooled_dim: int, tokens: int = 8):
        super().__init__()
        self.context = torch.nn.Parameter(torch.randn(2, tokens, context_dim))
        self.pooled = torch.nn.Parameter(torch.randn(2, pooled_dim))

    def forward(self, positive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B,)`` booleans to ``(B, tokens, context_dim)`` and ``(B, pooled_dim)``."""
        index = positive.long()
        return self.context[index], self.pooled[index]


class NanoSubject(Subject):
    """Nano's UNet with guidance in place; see :mod:`pgp_core.restorers.nano.model`. Captions are not read.

    Attributes:
        decoder: the learned one that redraws what is decoded; None where the pixel shuffle is all.
    """

    decoder: PixelDecoder | None

    negatives = True

    def __init__(
        self,
        unet: torch.nn.Module,
        guidance: Guidance,
        shape: UNetShape,
        prediction: str = nano.PREDICTION,
        s1_timestep: int = nano.S1_TIMESTEP,
        decoder: PixelDecoder | None = None,
    ):
        super().__init__()
        self.unet, self.guidance = unet, guidance
        self.prediction, self.s1_timestep = prediction, s1_timestep
        self.contexts = Contexts(shape.context_dim, shape.pooled_dim)
        self.decoder = decoder

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pixel unshuffle, times :data:`pgp_core.restorers.nano.model.SCALE`."""
        with torch.no_grad():
            return nano.SCALE * pixel_codec.encode(pictures)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """The inverse, redrawn by the decoder if there is one."""
        return pixel_codec.decode(z / nano.SCALE, self.decoder)

    def denoised(self, z_lq: torch.Tensor, z_hq: torch.Tensor) -> torch.Tensor:
        """The residual latent."""
        return z_hq - z_lq

    def conditioning(self, batch: Batch, positive: torch.Tensor) -> Conditioning:
        """The learned contexts; sizes are constant."""
        context, pooled = self.contexts(positive)
        ids = torch.tensor(nano.TIME_IDS, device=context.device).expand(len(positive), -1)
        return Conditioning(context, pooled, ids)
