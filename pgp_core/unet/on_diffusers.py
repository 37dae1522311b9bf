"""diffusers' UNet, pruned or full, for training, which needs its gradient checkpointing and PEFT.

Inference has a class of its own, :mod:`pgp_core.unet.model`. Diffusers is imported when something is called, here as
everywhere in this package.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from .plan import PrunePlan
from .prune import prune_module
from .shape import UNetShape

_SIDES: tuple[Literal["down", "up"], ...] = ("down", "up")


def build_unet(shape: UNetShape, plan: PrunePlan | None = None) -> torch.nn.Module:
    """A diffusers ``UNet2DConditionModel`` on the current default device, randomly initialised.

    Args:
        shape: see :class:`UNetShape`.
        plan: applied after building; block numbers keep their gaps. Build under ``torch.device("meta")``
            when weights are to be assigned.
    """
    from diffusers import UNet2DConditionModel

    topology, levels = shape.topology, range(len(shape.channels))
    down, up = ([topology.in_level(side, level) for level in levels] for side in _SIDES)
    unet: Any = UNet2DConditionModel(
        in_channels=shape.latent_channels,
        out_channels=shape.latent_channels,
        block_out_channels=shape.channels,
        layers_per_block=topology.resnets,
        down_block_types=tuple("CrossAttnDownBlock2D" if stacks else "DownBlock2D" for stacks in down),
        # With a stack it has as many blocks as the encoder's last.
        mid_block_type=(None, "UNetMidBlock2D", "UNetMidBlock2DCrossAttn")[topology.middle],
        up_block_types=tuple("CrossAttnUpBlock2D" if stacks else "UpBlock2D" for stacks in up),
        # It asks for a number where there is none.
        transformer_layers_per_block=tuple(stacks or 1 for stacks in down),
        reverse_transformer_layers_per_block=tuple(stacks or 1 for stacks in up),
        # diffusers calls the number of heads "attention_head_dim" here; see its own SDXL configuration.
        attention_head_dim=tuple(c // shape.head_dim for c in shape.channels),
        cross_attention_dim=shape.context_dim,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=shape.adm_dim,
    )
    return prune_module(unet, plan) if plan else unet
