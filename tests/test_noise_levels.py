"""Our noise levels and Euler's step against diffusers' scheduler, which the paper's authors sample with."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from draws import draw
from rounding import NETWORK, assert_same

from pgp_core.sampling.euler import SampleOptions, draw_noise, euler
from pgp_core.sampling.noise_levels import NoiseLevels
from pgp_core.sampling.rules import SPACINGS
from pgp_core.schedule import PREDICTIONS

#: What a thousand factors in float32 leave of ten million: diffusers' own table, which is float32 throughout.
TABLE = 1e-4
#: Rescaled to end in pure noise: there it takes the difference of two numbers that are almost the same.
RESCALED = 2e-2


def theirs(prediction: str = "epsilon", spacing: str = "leading", zero_snr: bool = False) -> Any:
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        timestep_spacing=spacing,
        steps_offset=1,
        rescale_betas_zero_snr=zero_snr,
    )


@pytest.mark.parametrize(("spacing", "zero_snr"), [*product(SPACINGS, (False, True))])
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50, 333, 999, 1000])
def test_timesteps_and_noise_levels_are_diffusers(spacing: str, zero_snr: bool, steps: int) -> None:
    scheduler = theirs(spacing=spacing, zero_snr=zero_snr)
    scheduler.set_timesteps(steps)
    ours = NoiseLevels.of(steps, spacing, zero_snr)
    assert ours.timesteps == pytest.approx(scheduler.timesteps.tolist(), rel=1e-6)
    assert ours.sigmas == pytest.approx(scheduler.sigmas.tolist(), rel=RESCALED if zero_snr else TABLE)
    assert ours.last_alpha == pytest.approx(float(scheduler.alphas_cumprod[-1]), rel=TABLE)


def test_the_last_steps_of_more() -> None:
    scheduler = theirs()
    scheduler.set_timesteps(20)
    ours = NoiseLevels.of(5, total=20)
    assert ours.timesteps == tuple(scheduler.timesteps.tolist()[-5:])
    assert ours.sigmas == pytest.approx(scheduler.sigmas.tolist()[-6:], rel=TABLE)


def test_another_spacing_or_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="'karras'"):
        NoiseLevels.of(4, "karras")
    with pytest.raises(ValueError, match="'x0'"):
        NoiseLevels.of(4).step("x0", 0)


@pytest.mark.parametrize(("prediction", "spacing", "zero_snr"), [*product(PREDICTIONS, SPACINGS, (False, True))])
def test_one_step_is_diffusers_at_every_noise_level(prediction: str, spacing: str, zero_snr: bool) -> None:
    """With the noise levels of one of them, so that the step alone is compared."""
    scheduler, steps = theirs(prediction, spacing, zero_snr), 9
    scheduler.set_timesteps(steps)
    ours = NoiseLevels.of(steps, spacing, zero_snr)
    scheduler.sigmas = torch.tensor(ours.sigmas)
    scheduler.set_begin_index(0)
    for i, t in enumerate(scheduler.timesteps):
        x, out = draw(2 * i, 1, 2, 5, 3) * max(ours.sigmas[i], 1), draw(2 * i + 1, 1, 2, 5, 3)
        scheduler.scale_model_input(x, t)
        expected = scheduler.step(out, t, x, return_dict=False)[0]
        a, b = ours.step(prediction, i)
        assert_same((a * x.double() + b * out.double()).float(), expected, NETWORK, x, out * max(ours.sigmas[i], 1))


@pytest.mark.parametrize("start", ["noise", "lq", "lr"])
@pytest.mark.parametrize(
    ("prediction", "zero_snr"), [("epsilon", False), ("v_prediction", False), ("v_prediction", True)]
)
def test_twenty_steps_are_diffusers(start: str, prediction: str, zero_snr: bool) -> None:
    """A whole run with a stand-in for the UNet, from each start."""
    lq = draw(3, 2, 4, 8, 6)

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) + t.view(-1, 1, 1, 1) / 1000

    denoise = 0.5 if start == "lq" else 1.0
    ours = euler(predict, lq, prediction, SampleOptions(seed=4, start=start, denoise=denoise), zero_snr=zero_snr)
    scheduler, total = theirs(prediction, zero_snr=zero_snr), round(20 / denoise)
    scheduler.set_timesteps(total)
    scheduler.set_begin_index(total - 20)
    sigma, a = scheduler.sigmas[total - 20], scheduler.alphas_cumprod[-1]
    noise = draw_noise(lq.shape, 4)
    x = {
        "noise": sigma * noise,
        "lq": lq + sigma * noise,
        "lr": a.sqrt() * lq + ((1 - a) * (sigma**2 + 1)).sqrt() * noise,
    }[start]
    largest = float(x.abs().max())
    for t in scheduler.timesteps[-20:]:
        x = scheduler.step(predict(scheduler.scale_model_input(x, t), t.expand(2)), t, x, return_dict=False)[0]
    assert ours.shape == x.shape
    # Its noise levels are off by TABLE and the latent with them, as far as they go.
    assert float((ours - x).abs().max()) <= (RESCALED if zero_snr else TABLE) * largest
