"""The noise schedule against diffusers' DDPM, Euler against a hand-written loop, and their options."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from draws import LQ, draw

from pgp_core import schedule
from pgp_core.errors import Cancelled, PGPError
from pgp_core.sampling import euler as sampling
from pgp_core.sampling.euler import draw_noise, euler
from pgp_core.sampling.options import SampleOptions

# -- schedule ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ddpm() -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x0, noise, timesteps."""
    return draw(1, 5, 3, 4, 6), draw(2, 5, 3, 4, 6), torch.tensor([0, 1, 300, 951, 999])


def test_alphas_are_diffusers(ddpm: Any) -> None:
    assert schedule.alphas_cumprod().shape == (1000,)
    torch.testing.assert_close(schedule.alphas_cumprod(), ddpm.alphas_cumprod, atol=1e-6, rtol=1e-4)


def test_add_noise_is_diffusers(ddpm: Any, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(schedule.add_noise(*batch), ddpm.add_noise(*batch), atol=1e-4, rtol=1e-4)


def test_targets_are_diffusers(ddpm: Any, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    velocity = ddpm.get_velocity(*batch)
    torch.testing.assert_close(schedule.target("v_prediction", *batch), velocity, atol=1e-4, rtol=1e-4)
    assert torch.equal(schedule.target("epsilon", *batch), batch[1])
    assert torch.equal(schedule.target("sample", *batch), batch[0])
    with pytest.raises(ValueError, match="'x0'"):
        schedule.target("x0", *batch)


# -- Euler -------------------------------------------------------------------------------------------------


def sigma_of(timestep: int) -> float:
    """``sqrt((1 - a) / a)`` with SDXL's "scaled linear" betas, in float64."""
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    a = np.prod(1 - betas[: timestep + 1])
    return float(np.sqrt((1 - a) / a))


def clean_estimate(x: np.ndarray, sigma: float) -> np.ndarray:
    """A made-up denoiser in sigma space: not linear, and different at every noise level."""
    return 0.8 * np.tanh(x / (1 + 0.5 * sigma)) + 0.1 * np.cos(sigma + x)


def by_hand(noise: np.ndarray, start: np.ndarray | float, timesteps: list[int]) -> np.ndarray:
    """Euler in sigma space: x moves along ``(x - x0) / sigma``, to sigma 0 at the end."""
    sigmas = [*(sigma_of(t) for t in timesteps), 0.0]
    x = start + sigmas[0] * noise
    for now, then in pairwise(sigmas):
        x = x + (then - now) * (x - clean_estimate(x, now)) / now
    return x


class Toy:
    """What a UNet that knows :func:`clean_estimate` would output, given the scaled latent."""

    def __init__(self, prediction: str):
        self.prediction = prediction
        self.timesteps: list[float] = []

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert t.shape == (x.shape[0],)
        assert (t == t[0]).all()
        self.timesteps.append(float(t[0]))
        sigma = sigma_of(int(t[0]))
        a = 1 / (1 + sigma**2)
        unscaled = x.double().numpy() / math.sqrt(a)
        x0 = clean_estimate(unscaled, sigma)
        eps = (unscaled - x0) / sigma
        v = math.sqrt(a) * eps - math.sqrt(1 - a) * x0
        return torch.from_numpy({"epsilon": eps, "v_prediction": v, "sample": x0}[self.prediction]).to(x)


def noise_of(seed: int) -> np.ndarray:
    """As ComfyUI draws it: the global generator on the CPU, seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.randn(LQ.shape).double().numpy()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("start", ["noise", "lq"])
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_euler_is_the_loop_by_hand(prediction: str, start: str, steps: int) -> None:
    toy = Toy(prediction)
    result = euler(toy, LQ, prediction, SampleOptions(steps=steps, seed=11, start=start))  # type: ignore[arg-type]
    timesteps = [1 + i * (1000 // steps) for i in range(steps)][::-1]
    assert toy.timesteps == timesteps
    expected = by_hand(noise_of(11), LQ.double().numpy() if start == "lq" else 0.0, timesteps)
    assert result.dtype == LQ.dtype
    np.testing.assert_allclose(result.double().numpy(), expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_large_latent_s_step_in_strips_is_the_step(prediction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(float(t[0]))
        return torch.tanh(x) + t.view(-1, 1, 1, 1) / 1000

    start, options = torch.zeros(2, 3, 13, 5), SampleOptions(steps=4, seed=2)
    whole = euler(predict, start, prediction, options)
    monkeypatch.setattr(sampling, "_ROWS", 5)
    assert torch.equal(euler(predict, start, prediction, options), whole)
    assert calls == [751, 501, 251, 1] * 2


def test_the_start_noise_has_the_variance_of_noised_latents() -> None:
    """x = sigma * noise + x0 has the variance sigma**2 + std**2."""
    toy = Toy("epsilon")
    seen: list[torch.Tensor] = []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return toy(x, t)

    euler(model, LQ, "epsilon", SampleOptions(steps=4, seed=11), latent_std=0.5)  # type: ignore[arg-type]
    sigma = sigma_of(751)
    expected = noise_of(11) * math.sqrt(sigma**2 + 0.25) / math.sqrt(sigma**2 + 1)
    np.testing.assert_allclose(seen[0].double().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_start_gain() -> None:
    assert schedule.start_gain(6.0, 2.0) == pytest.approx(math.sqrt(40) / 6)
    assert schedule.start_gain(5.9, 2.0) == schedule.start_gain(14.6, 0.0) == 1


def test_twenty_steps_are_951_to_1() -> None:
    toy = Toy("epsilon")
    euler(toy, LQ, "epsilon", SampleOptions())  # type: ignore[arg-type]
    assert toy.timesteps == list(range(951, 0, -50))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("denoise", "first"), [(0.5, 451), (0.25, 226), (0.9, 811)])
def test_a_weaker_denoise_takes_the_last_part_of_more_steps(prediction: str, denoise: float, first: int) -> None:
    toy, steps = Toy(prediction), 10
    result = euler(toy, LQ, prediction, SampleOptions(steps=steps, seed=5, start="lq", denoise=denoise))  # type: ignore[arg-type]
    stride = 1000 // int(steps / denoise)
    timesteps = [1 + i * stride for i in range(steps)][::-1]
    assert timesteps[0] == first
    assert toy.timesteps == timesteps
    np.testing.assert_allclose(
        result.double().numpy(), by_hand(noise_of(5), LQ.double().numpy(), timesteps), atol=2e-4, rtol=2e-4
    )


def test_a_start_from_noise_has_no_denoise_and_no_lq() -> None:
    options = SampleOptions(steps=4, seed=5)
    weaker = SampleOptions(steps=4, seed=5, denoise=0.5)
    results = [
        euler(Toy("epsilon"), latent, "epsilon", o)  # type: ignore[arg-type]
        for latent, o in ((LQ, options), (LQ, weaker), (torch.zeros_like(LQ), options))
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_the_seed_alone_decides_the_noise() -> None:
    np.testing.assert_array_equal(draw_noise(LQ.shape, 42).double().numpy(), noise_of(42))
    state = torch.random.get_rng_state()
    one, again, other = (draw_noise(LQ.shape, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left alone"


def test_progress_after_every_step() -> None:
    calls: list[tuple[int, int]] = []
    euler(Toy("epsilon"), LQ, "epsilon", SampleOptions(steps=4), lambda *a: calls.append(a))  # type: ignore[arg-type, func-returns-value]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_progress_can_cancel() -> None:
    toy = Toy("epsilon")
    with pytest.raises(Cancelled):
        euler(toy, LQ, "epsilon", SampleOptions(steps=8), lambda done, _total: done < 3)  # type: ignore[arg-type]
    assert len(toy.timesteps) == 3
    assert not issubclass(Cancelled, PGPError), "a cancelled run is no error of the input"


# -- options -----------------------------------------------------------------------------------------------


def test_the_defaults_are_the_paper_s() -> None:
    o = SampleOptions()
    assert (o.steps, o.cfg, o.start, o.denoise, o.strength) == (20, 5.0, "noise", 1.0, 1.0)
    assert (o.start_percent, o.end_percent) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": -1}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"cfg": -0.1}, "cfg"),
        ({"cfg": 101.0}, "cfg"),
        ({"cfg": math.nan}, "cfg"),
        ({"cfg": math.inf}, "cfg"),
        ({"start": "middle"}, "middle"),
        ({"denoise": 0.0}, "denoise"),
        ({"denoise": 1.1}, "denoise"),
        ({"denoise": math.nan}, "denoise"),
        ({"strength": -0.1}, "strength"),
        ({"strength": 1.1}, "strength"),
        ({"start_percent": -0.1}, "range"),
        ({"end_percent": 1.1}, "range"),
        ({"start_percent": 0.6, "end_percent": 0.4}, "range"),
        ({"start_percent": math.nan}, "range"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(bad: dict[str, Any], word: str) -> None:
    with pytest.raises(PGPError, match=word) as error:
        SampleOptions(**bad)
    assert "\n" not in str(error.value)
