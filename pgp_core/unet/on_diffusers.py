"""diffusers' UNet, pruned or full, for training, which needs its gradient checkpointing and PEFT.

Inference has a class of its own, :mod:`pgp_core.unet.model`. Diffusers is imported when something is called, here as
everywhere in this package.
"""

from __future__ import annotations

from typing import Any

import torch

from .plan import PrunePlan
from .prune import prune_module
from .shape import UNetShape


def build_unet(shape: UNetShape, plan: PrunePlan | None = None) -> torch.nn.Module:
    """A diffusers ``UNet2DConditionModel`` on the current default device, randomly initialised.

    Args:
        shape: see :class:`UNetShape`.
        plan: applied after building; block numbers keep their gaps. Build under ``torch.device("meta")``
            when weights are to be assigned.
    """
    from diffusers import UNet2DConditionModel

    depth = shape.topology.depths
    level_1, level_2 = depth["down_blocks.1.attentions.0"], depth["down_blocks.2.attentions.0"]
    unet: Any = UNet2DConditionModel(
        in_channels=shape.latent_channels,
        out_channels=shape.latent_channels,
        block_out_channels=shape.channels,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, level_1, level_2),
        # diffusers calls the number of heads "attention_head_dim" here; see its own SDXL configuration.
        attention_head_dim=tuple(c // shape.head_dim for c in shape.channels),
        cross_attention_dim=shape.context_dim,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=shape.adm_dim,
    )
    return prune_module(unet, plan) if plan else unet
