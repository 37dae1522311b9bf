from collections.abc import Callable
from typing import Any

import torch

from .model_patcher import ModelPatcher

class VAE:
    first_stage_model: torch.nn.Module
    patcher: ModelPatcher
    device: torch.device
    size: int | None
    downscale_ratio: int
    upscale_ratio: int
    latent_channels: int
    handles_tiling: bool
    memory_used_decode: Callable[[tuple[int, ...], torch.dtype], float]
    def __init__(self, sd: dict[str, Any] | None = ..., *, dtype: torch.dtype | None = ...) -> None: ...
