"""The UNets that were distilled from SDXL, as published: their configurations and sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from faithdiff_file import NARROW
from safetensors.torch import save_file

from pgp_core.unet.known import TOPOLOGIES
from pgp_core.unet.shape import UNetShape

#: ``unet/config.json`` of segmind/SSD-1B, segmind/Segmind-Vega, etri-vilab/koala-1b and etri-vilab/koala-700m, where
#: it is not SDXL's.
CONFIGS: dict[str, dict[str, Any]] = {
    "ssd-1b": {
        "transformer_layers_per_block": (1, (2, 2), (4, 4)),
        "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1),
        "mid_block_type": "UNetMidBlock2D",
    },
    "segmind-vega": {
        "transformer_layers_per_block": (1, (1, 1), (2, 2)),
        "reverse_transformer_layers_per_block": ((2, 2, 2), (1, 1, 1), 1),
        "mid_block_type": "UNetMidBlock2D",
    },
    "koala-1b": {"layers_per_block": 1, "transformer_layers_per_block": (1, 2, 6)},
    "koala-700m": {"layers_per_block": 1, "transformer_layers_per_block": (1, 2, 5), "mid_block_type": None},
}
#: Published parameters of the UNet in millions: the cards of SSD-1B (1.3 B) and Vega (745 M), KOALA's table.
MILLIONS = {"ssd-1b": 1331, "segmind-vega": 745, "koala-1b": 1161, "koala-700m": 782}
#: Core's name for each.
IN_CORE = {"ssd-1b": "SSD1B", "segmind-vega": "Segmind_Vega", "koala-1b": "KOALA_1B", "koala-700m": "KOALA_700M"}


def by_diffusers(
    name: str, channels: tuple[int, int, int] = (320, 640, 1280), context: int = 2048, pooled: int = 1280
) -> Any:
    """diffusers' UNet from the published configuration, at other widths if need be."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        **{
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": channels,
            "layers_per_block": 2,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": tuple(c // 64 for c in channels),
            "cross_attention_dim": context,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": pooled + 6 * 256,
        }
        | CONFIGS[name]
    )


def narrow_shape(name: str) -> UNetShape:
    """The topology at the width of the other narrow files."""
    return replace(NARROW, topology=TOPOLOGIES[name])


def narrow(name: str, seed: int = 0) -> Any:
    """:func:`by_diffusers` at that width, its weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return by_diffusers(name, NARROW.channels, NARROW.context_dim, NARROW.pooled_dim).eval()


def write(folder: Path, name: str) -> Path:
    """A file of the narrow UNet in diffusers' names, without metadata."""
    path = folder / f"{name}.safetensors"
    save_file(narrow(name).state_dict(), path)
    return path
