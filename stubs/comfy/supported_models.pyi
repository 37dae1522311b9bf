from collections.abc import Sequence
from typing import Any

import torch

from .latent_formats import LatentFormat
from .model_base import BaseModel, ModelType

class SDXL:
    unet_config: dict[str, Any]
    unet_extra_config: dict[str, Any]
    latent_format: LatentFormat
    memory_usage_factor: float
    supported_inference_dtypes: Sequence[torch.dtype]
    sampling_settings: dict[str, Any]
    optimizations: dict[str, bool]
    def __init__(self, unet_config: dict[str, Any]) -> None: ...
    def model_type(self, state_dict: dict[str, Any], prefix: str = ...) -> ModelType: ...
    def inpaint_model(self) -> bool: ...
    def get_model(
        self, state_dict: dict[str, Any], prefix: str = ..., device: torch.device | None = ...
    ) -> BaseModel: ...
    def set_inference_dtype(
        self, dtype: torch.dtype, manual_cast_dtype: torch.dtype | None, device: torch.device | None = ...
    ) -> None: ...
