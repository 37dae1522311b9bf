"""A narrow LQ encoder, whose tiles are small."""

from __future__ import annotations

import torch

from pgp_core.guidance.module import Guidance, GuidanceSpec, Site

#: Two pixels per position, so that tiles of 32 positions, the smallest that are halved to, are small.
ENCODER = GuidanceSpec(base="test", sites=(Site("conv_in", 32, 0, 2, "alignment"),), encoder_channels=(32, 32))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make(spec: GuidanceSpec = ENCODER) -> Guidance:
    torch.manual_seed(1)
    return Guidance(spec).eval()
