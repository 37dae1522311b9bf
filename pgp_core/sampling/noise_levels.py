"""Noise levels of a run of Euler's, and its step, by arithmetic in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import schedule
from .rules import SPACINGS

#: What a product of ``1 - beta`` ends in that would end in 0: then the first noise level is large, not infinite.
_ALMOST_ZERO = 2.0**-24


@dataclass(frozen=True)
class NoiseLevels:
    """Of one run, from noise to picture.

    Attributes:
        timesteps: one a step, falling.
        sigmas: noise beside a picture of unit weight: at each timestep, and 0 at last.
        last_alpha: the product of ``1 - beta`` over the whole schedule.
    """

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    last_alpha: float

    @classmethod
    def of(cls, steps: int, spacing: str = "leading", zero_snr: bool = False, total: int | None = None) -> NoiseLevels:
        """The last ``steps`` of ``total`` steps.

        Args:
            spacing: one of :data:`pgp_core.sampling.rules.SPACINGS`; "leading" has an offset of 1: 951, 901, ..., 1 for
                20 steps.
            zero_snr: the schedule is rescaled to end in pure noise (Lin et al., algorithm 1).
            total: of the whole schedule; by default ``steps``.

        Raises:
            ValueError: for another spacing.
        """
        alphas = _alphas(zero_snr)
        table = ((1 - alphas) / alphas).sqrt().tolist()
        timesteps = _timesteps(total or steps, spacing)[-steps:]
        return cls(timesteps, (*(_between(table, t) for t in timesteps), 0.0), float(alphas[-1]))

    def step(self, prediction: str, i: int) -> tuple[float, float]:
        """What step ``i`` makes of a latent: ``a * latent + b * output``.

        Euler moves ``x`` by ``(x - x0) / sigma`` times the change of sigma. Every prediction's ``x0`` is a sum of
        ``x`` and the output, and so is the result.

        Args:
            prediction: one of :data:`pgp_core.schedule.PREDICTIONS`.

        Raises:
            ValueError: for another prediction.
        """
        now, then = self.sigmas[i], self.sigmas[i + 1]
        if prediction == "epsilon":
            return 1.0, then - now
        if prediction == "v_prediction":
            return (1 + now * then) / (now**2 + 1), (then - now) / (now**2 + 1) ** 0.5
        if prediction == "sample":
            return then / now, 1 - then / now
        raise ValueError(f'prediction is "epsilon", "v_prediction" or "sample", not {prediction!r}')


def _alphas(zero_snr: bool) -> torch.Tensor:
    """``(1000,)`` float64: the product of ``1 - beta`` up to each timestep."""
    alphas = schedule.exact_alphas_cumprod()
    if zero_snr:
        roots = alphas.sqrt()
        alphas = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
        alphas[-1] = _ALMOST_ZERO
    return alphas


def _timesteps(steps: int, spacing: str) -> tuple[float, ...]:
    """Falling; whole numbers but for "linspace"."""
    count = schedule.TRAIN_STEPS
    if spacing == "leading":
        return tuple(float(i * (count // steps) + 1) for i in reversed(range(steps)))
    if spacing == "trailing":
        return tuple(float(round(count - i * count / steps) - 1) for i in range(steps))
    if spacing == "linspace":
        return tuple((count - 1) * i / max(steps - 1, 1) for i in reversed(range(steps)))
    raise ValueError(f"spacing is one of {', '.join(SPACINGS)}, not {spacing!r}")


def _between(table: list[float], timestep: float) -> float:
    """Between two entries in proportion; the last one beyond the end, where "leading" begins with as many steps as the
    schedule has."""
    low = min(int(timestep), len(table) - 1)
    high, share = min(low + 1, len(table) - 1), timestep - int(timestep)
    return table[low] + share * (table[high] - table[low])
