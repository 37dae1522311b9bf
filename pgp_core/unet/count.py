"""Parameters and multiply-accumulates of a UNet under a plan, counted on the meta device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from .on_diffusers import build_unet
from .plan import PrunePlan
from .shape import UNetShape


@dataclass(frozen=True)
class Counts:
    """Plain numbers, one UNet call at batch 1 with 77 tokens.

    Attributes:
        params: parameters.
        macs_conv_linear: multiply-accumulates of convolutions and linear layers, which is what the paper's
            tables count.
        macs_total: with attention's own products.
        latent: height and width of the latent.
    """

    params: int
    macs_conv_linear: int
    macs_total: int
    latent: tuple[int, int]


def count(shape: UNetShape, plan: PrunePlan | None = None, latent: tuple[int, int] = (128, 128)) -> Counts:
    """Count without allocating anything; takes seconds."""
    with torch.device("meta"):
        unet = build_unet(shape, plan)
        x = torch.empty(1, shape.latent_channels, *latent)
        context, pooled, ids = (
            torch.empty(1, 77, shape.context_dim),
            torch.empty(1, shape.pooled_dim),
            torch.empty(1, 6),
        )
        timestep = torch.empty(1)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        unet(
            x,
            timestep,
            encoder_hidden_states=context,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": ids},
        )
    flops = counter.get_flop_counts()["Global"]
    aten = torch.ops.aten
    dense = sum(n for op, n in flops.items() if op in (aten.convolution, aten.addmm, aten.mm))
    params = sum(p.numel() for p in unet.parameters())
    return Counts(params, dense // 2, sum(flops.values()) // 2, latent)
