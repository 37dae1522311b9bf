"""diffusers' UNet as our backbone: building it, pruned or full, and its weights.

Nodes never need it: diffusers is imported when something is called, here as everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..files.checkpoints import check_same
from ..files.weights import WeightsFile
from .inspect import UNetInfo
from .plan import PrunePlan
from .prune import prune_module
from .shape import UNetShape
from .topology import KeyMap, scheme_of


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


def load_unet(
    shape: UNetShape, plan: PrunePlan | None, state_dict: Mapping[str, torch.Tensor], source: str = "this file"
) -> torch.nn.Module:
    """A diffusers UNet with the weights of a file in either scheme, without allocating it twice.

    Raises:
        CheckpointError: naming the first few missing, foreign or misshapen keys.
        PlanError: if the plan does not fit the shape.
    """
    weights = dict(state_dict)
    if scheme_of(weights) == "ldm":
        names = KeyMap.of(weights)
        weights = {names.to_diffusers(k): v for k, v in weights.items()}
    with torch.device("meta"):
        unet = build_unet(shape, plan)
    check_same({k: tuple(v.shape) for k, v in unet.state_dict().items()}, weights, source)
    unet.load_state_dict(weights, assign=True)
    return unet.eval()


def check_whole(info: UNetInfo, file: WeightsFile, plan: PrunePlan | None = None) -> None:
    """Whether a file has every weight of its UNet, by diffusers' own account of it. No weight is read.

    Args:
        plan: whose removed blocks may be missing; None wants all blocks.

    Raises:
        CheckpointError: naming the first few missing, foreign or misshapen keys.
    """
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in build_unet(info.shape, plan).state_dict().items()}
        found = {info.diffusers(k): torch.empty(file.shapes[k]) for k in info.keys}
    check_same(expected, found, file.name)
