"""What core's ``model_sampling`` makes of a UNet's output, told by what it does and not by its class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from ...pgp_core.errors import PGPError
from ...pgp_core.schedule import TRAIN_STEPS

#: Numbers that a model's arithmetic is tried on: its input, its output, and noise levels beside the one needed.
_X, _OUT = 0.7, 0.25
#: Timesteps that a discrete schedule of 1000 gives back.
_TIMESTEPS = (1, TRAIN_STEPS // 2, TRAIN_STEPS - 1)


@dataclass(frozen=True)
class Level:
    """One timestep of a MODEL as core has it now.

    Attributes:
        prediction: ``epsilon``, ``v_prediction`` or ``sample``, as :data:`pgp_core.schedule.PREDICTIONS`.
        sigma: noise level of the timestep.
    """

    prediction: str
    sigma: float

    @classmethod
    def of(cls, sampling: Any, timestep: int, node: str) -> Level:
        """Other packs and core's ModelSampling nodes bring classes of their own, which mostly derive from those that
        they differ from; so what counts is how they scale the input, and what they make of the output.

        Args:
            node: who asks, for the error.

        Raises:
            PGPError: where that is not what SDXL's kind of model does, or the schedule has no such timestep.
        """
        try:
            prediction = _prediction(sampling, timestep)
            sigma = _sigma(sampling, timestep)
        except Exception:
            prediction, sigma = None, math.nan
        if prediction is None or not 0 < sigma < math.inf:
            raise PGPError(
                f"{node} needs a model that predicts noise, v or the sample on SDXL's 1000 noise levels; this MODEL is "
                f"set to sample otherwise ({_described(sampling)}): connect the MODEL before ModelSampling nodes"
            )
        return cls(prediction, sigma)


def timestep_of(sampling: Any, sigma: float) -> float:
    """The timestep that a noise level is called."""
    return float(sampling.timestep(torch.tensor(sigma)))


def _sigma(sampling: Any, timestep: int) -> float:
    return float(sampling.sigma(torch.tensor(float(timestep))))


def _prediction(sampling: Any, timestep: int) -> str | None:
    """How it reads the UNet's output; None where it is not as SDXL has it."""
    found = {_prediction_at(sampling, t) for t in {timestep, *_TIMESTEPS}}
    return found.pop() if len(found) == 1 else None


def _prediction_at(sampling: Any, timestep: int) -> str | None:
    sigma = _sigma(sampling, timestep)
    if not 0 < sigma < math.inf or timestep_of(sampling, sigma) != timestep:
        return None
    s = torch.tensor([sigma], dtype=torch.float64)
    x, out = (torch.full((1, 1, 1, 1), n, dtype=torch.float64) for n in (_X, _OUT))
    scale = math.sqrt(1 + sigma**2)
    if not _same(sampling.calculate_input(s, x), _X / scale):
        return None
    denoised = sampling.calculate_denoised(s, out, x)
    meanings = {
        "epsilon": _X - sigma * _OUT,
        "v_prediction": _X / scale**2 - sigma * _OUT / scale,
        "sample": _OUT,
    }
    return next((name for name, value in meanings.items() if _same(denoised, value)), None)


def _same(found: torch.Tensor, expected: float) -> bool:
    # Buffers of core's are float32; at timestep 0, noise and v differ by 6e-4.
    return math.isclose(float(found), expected, rel_tol=1e-5, abs_tol=1e-7)


def _described(sampling: Any) -> str:
    """Names of its classes, core's own ModelSampling nodes' being the bases of one without a name of its own."""
    kind = type(sampling)
    named = kind.__bases__ if kind.__name__ in ("ModelSamplingAdvanced", "ModelSampling") else (kind,)
    return ", ".join(k.__name__ for k in named)
