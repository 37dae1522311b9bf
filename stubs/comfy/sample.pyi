import torch

from .model_patcher import ModelPatcher

def fix_empty_latent_channels(
    model: ModelPatcher,
    latent_image: torch.Tensor,
    downscale_ratio_spacial: int | None = ...,
    downscale_ratio_temporal: int | None = ...,
) -> torch.Tensor: ...
