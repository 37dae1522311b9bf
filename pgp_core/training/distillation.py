"""What distillation to one step minimises."""

from __future__ import annotations

from typing import Any

from .config import S1
from .losses import OneStepLoss
from .subject import Subject


def make_loss(config: S1, subject: Subject) -> Any:
    """``loss(subject, batch, generator)`` of the stage that is asked for."""
    return OneStepLoss(config.timestep, edges=config.edges or 0.0)
