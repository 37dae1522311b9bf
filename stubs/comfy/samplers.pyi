from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .model_base import BaseModel
from .model_patcher import ModelPatcher

class _CondObj(NamedTuple):
    area: tuple[int, ...]

def get_area_and_mult(conds: dict[str, Any], x_in: torch.Tensor, timestep_in: torch.Tensor) -> _CondObj: ...

class Sampler: ...

class KSAMPLER(Sampler):
    def __init__(self, sampler_function: Callable[..., torch.Tensor]) -> None: ...

class CFGGuider:
    model_patcher: ModelPatcher
    model_options: dict[str, Any]
    cfg: float
    conds: dict[str, list[dict[str, Any]]]
    inner_model: BaseModel
    def sample(
        self,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        sampler: Sampler,
        sigmas: torch.Tensor,
        denoise_mask: torch.Tensor | None = ...,
        callback: Callable[..., None] | None = ...,
        disable_pbar: bool = ...,
        seed: int | None = ...,
    ) -> torch.Tensor: ...
