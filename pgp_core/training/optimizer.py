"""AdamW and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import TrainingError
from ..extras import library
from .config import Optimizer


def build_optimizer(module: torch.nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """AdamW over what is trainable, each group with a ``factor`` on the learning rate.

    Where several beginnings of ``lr_factors`` fit a parameter's name, the first counts.

    Raises:
        TrainingError: if nothing is trainable, or 8-bit states are asked for and not installed.
    """
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, p in module.named_parameters():
        if p.requires_grad:
            factor = next((f for prefix, f in config.lr_factors.items() if name.startswith(prefix)), 1.0)
            groups.setdefault(factor, []).append(p)
    if not groups:
        raise TrainingError("nothing of the model is trained: name more in model.train")
    listed = [{"params": params, "factor": factor} for factor, params in groups.items()]
    settings = {"lr": config.lr, "betas": config.betas, "weight_decay": config.weight_decay}
    if config.kind == "adamw8bit":
        return _adamw8bit(listed, settings)
    return torch.optim.AdamW(listed, fused=True, **settings)  # type: ignore[arg-type]


def _adamw8bit(groups: list[dict[str, Any]], settings: dict[str, Any]) -> torch.optim.Optimizer:
    found = library("bitsandbytes.optim", 'optimizer.kind "adamw8bit"', "bitsandbytes", "adam8bit", error=TrainingError)
    optimizer: torch.optim.Optimizer = found.AdamW8bit(groups, **settings)
    return optimizer


def learning_rate(config: Optimizer, step: int, steps: int) -> float:
    """The learning rate of step number ``step`` (from 0) of ``steps``.

    It rises linearly over ``warmup`` steps, then stays, or falls along half a cosine to zero at the end.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    share = (step - config.warmup) / max(1, steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * share))


def take_up(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimiser the states of a checkpoint. Its settings stay those of the configuration.

    Raises:
        ValueError: if a parameter's states are incomplete or of another shape. A checkpoint that holds anything else
            may raise anything.
    """
    own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    if not isinstance(optimizer, torch.optim.AdamW):
        return
    for p, memory in optimizer.state.items():
        shapes = {k: tuple(v.shape) for k, v in memory.items()}
        if shapes != {"step": (), "exp_avg": tuple(p.shape), "exp_avg_sq": tuple(p.shape)}:
            raise ValueError("the optimiser's memory does not fit its weights")
