from enum import Enum
from typing import Any

import torch

from .latent_formats import LatentFormat
from .model_patcher import ModelPatcher

class ModelType(Enum):
    EPS = ...
    V_PREDICTION = ...

class BaseModel(torch.nn.Module):
    model_config: Any
    # What others set in its place is known by what it does.
    model_sampling: Any
    # Of any network; in ours a UNetModel, whose blocks are asked for by name.
    diffusion_model: torch.nn.Module
    latent_format: LatentFormat
    manual_cast_dtype: torch.dtype | None
    current_patcher: ModelPatcher | None
    def get_dtype_inference(self) -> torch.dtype: ...
    def process_latent_in(self, latent: torch.Tensor) -> torch.Tensor: ...
    def load_model_weights(
        self, sd: dict[str, torch.Tensor], unet_prefix: str = ..., assign: bool = ...
    ) -> BaseModel: ...
    def memory_required(self, input_shape: list[int], cond_shapes: dict[str, Any] = ...) -> float: ...
