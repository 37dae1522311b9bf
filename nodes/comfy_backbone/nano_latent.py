"""Nano's latent format."""

from __future__ import annotations

from typing import ClassVar

import comfy.latent_formats
import torch

from ...pgp_core.codecs import pixel as pixel_codec
from ...pgp_core.restorers.nano import model as nano


class NanoLatent(comfy.latent_formats.LatentFormat):
    """Nano's residual latent; previews show the residual around grey."""

    latent_channels = pixel_codec.CHANNELS
    spacial_downscale_ratio = pixel_codec.FACTOR
    scale_factor = nano.SCALE
    #: What is sampled is added to the LQ canvas's own latent.
    is_residual = True
    #: The latent of a picture that is evenly 0.5 is zero.
    grey_is_zero = True
    # The previewer maps channels to RGB linearly; after unshuffling there are three left.
    latent_rgb_factors: ClassVar = [[0.3, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.3]]

    @staticmethod
    def latent_rgb_factors_reshape(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pixel_shuffle(x, pixel_codec.FACTOR)
