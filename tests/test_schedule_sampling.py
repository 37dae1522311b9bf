"""The noise schedule against diffusers' DDPM, Euler against a hand-written loop, CFG, one step."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pgp_core import sampling, schedule
from pgp_core.denoiser import Conditioning, Denoiser
from pgp_core.errors import Cancelled, PGPError
from pgp_core.guidance import Guidance, GuidanceSpec, Site
from pgp_core.one_step import Dial, dialled, one_step
from pgp_core.sampling import SampleOptions, draw_noise, euler, restore_once
from pgp_core.unet_diffusers import guided


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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


LQ = draw(3, 2, 4, 5, 7)


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


# -- classifier-free guidance ------------------------------------------------------------------------------

IDS = (512.0, 500.0, 0.0, 8.0, 512.0, 500.0)
POSITIVE = Conditioning(draw(20, 1, 5, 16), draw(21, 1, 16), IDS)
NEGATIVE = Conditioning(draw(22, 1, 5, 16), draw(23, 1, 16), (256.0, 250.0, 0.0, 8.0, 512.0, 500.0))
SITE = Site("down_blocks.0.downsamplers.0", 32, 0, 8)
SPEC = GuidanceSpec(base="pgp-nano", sites=(SITE,), channels=(32, 32, 32, 32), unshuffle=8)


class FakeUNet(torch.nn.Module):
    """Notes how it is called and answers with a formula."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = torch.nn.Identity()
        self.calls: list[SimpleNamespace] = []

    def forward(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        added_cond_kwargs: Any,
        return_dict: bool,
    ) -> tuple[torch.Tensor]:
        assert not return_dict
        x = self.conv_in(x)
        self.calls.append(SimpleNamespace(x=x, t=t, context=encoder_hidden_states, **added_cond_kwargs))
        gain = encoder_hidden_states.mean((1, 2)) + added_cond_kwargs["text_embeds"].mean(1)
        return (x * gain.view(-1, 1, 1, 1) + added_cond_kwargs["time_ids"].sum(1).view(-1, 1, 1, 1),)


class FakeGuidance:
    """One site; notes the strength of every call."""

    def __init__(self) -> None:
        self.spec = SimpleNamespace(sites=(Site("conv_in", 4, 0, 4),))
        self.strengths: list[float] = []

    def dtype_at(self, _site: int, f: torch.Tensor) -> torch.dtype:
        return f.dtype

    def fuse(self, _site: int, h: torch.Tensor, _f: torch.Tensor, strength: float, *_: object) -> torch.Tensor:
        self.strengths.append(strength)
        return h


def denoiser(options: SampleOptions, negative: Conditioning | None = NEGATIVE) -> Any:
    unet, guidance = FakeUNet(), FakeGuidance()
    return Denoiser(unet, guidance, (torch.zeros(1, 4, 5, 7),), POSITIVE, negative, options)  # type: ignore[arg-type]


def answer(x: torch.Tensor, c: Conditioning) -> torch.Tensor:
    """The fake UNet's formula for one conditioning."""
    return x.double() * (c.context.double().mean() + c.pooled.double().mean()) + sum(c.time_ids)


@pytest.mark.parametrize("cfg", [5.0, 1.5, 0.0])
def test_cfg_is_uncond_plus_scale_times_the_difference(cfg: float) -> None:
    model = denoiser(SampleOptions(cfg=cfg))
    result = model(LQ, torch.full((2,), 301.0))
    uncond, cond = answer(LQ, NEGATIVE), answer(LQ, POSITIVE)
    torch.testing.assert_close(result.double(), uncond + cfg * (cond - uncond), atol=1e-2, rtol=1e-5)
    (call,) = model.unet.calls
    assert torch.equal(call.x, torch.cat([LQ, LQ])), "[uncond, cond] in one batch"
    assert torch.equal(call.context, torch.cat([NEGATIVE.context] * 2 + [POSITIVE.context] * 2))
    assert torch.equal(call.text_embeds, torch.cat([NEGATIVE.pooled] * 2 + [POSITIVE.pooled] * 2))
    assert call.time_ids.tolist() == [list(NEGATIVE.time_ids)] * 2 + [list(IDS)] * 2
    assert call.t.tolist() == [301.0] * 4


@pytest.mark.parametrize(("cfg", "negative"), [(1.0, NEGATIVE), (5.0, None)])
def test_cfg_one_or_no_negative_makes_a_single_call(cfg: float, negative: Conditioning | None) -> None:
    model = denoiser(SampleOptions(cfg=cfg), negative)
    result = model(LQ, torch.full((2,), 301.0))
    torch.testing.assert_close(result.double(), answer(LQ, POSITIVE), atol=1e-3, rtol=1e-5)
    assert [c.x.shape[0] for c in model.unet.calls] == [2]


@torch.no_grad()
def test_cfg_in_one_batch_is_two_calls_apart_with_guidance_and_a_batch_of_two(
    make_unet: Callable[..., torch.nn.Module],
) -> None:
    unet: Any = make_unet()
    guidance = Guidance(SPEC)
    for p in guidance.parameters():
        torch.nn.init.normal_(p, std=0.05, generator=torch.Generator().manual_seed(p.numel()))
    x, t = draw(30, 2, 4, 13, 18), torch.full((2,), 501.0)
    features = guidance.features(torch.rand(2, 3, 52, 72, generator=torch.Generator().manual_seed(31)))
    model = Denoiser(unet, guidance, features, POSITIVE, NEGATIVE, SampleOptions(cfg=3.0))

    def alone(c: Conditioning) -> torch.Tensor:
        outs = []
        for i in range(2):
            with guided(unet, guidance, tuple(f[i : i + 1] for f in features)):
                added = {"text_embeds": c.pooled, "time_ids": torch.tensor([c.time_ids])}
                outs.append(unet(x[i : i + 1], t[:1], c.context, added_cond_kwargs=added).sample)
        return torch.cat(outs).double()

    uncond, cond = alone(NEGATIVE), alone(POSITIVE)
    torch.testing.assert_close(model(x, t).double(), uncond + 3 * (cond - uncond), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("start", "end", "active"),
    [
        (0.0, 1.0, range(1, 952, 50)),
        # Timesteps between (1 - end) * 999 and (1 - start) * 999.
        (0.2, 0.7, range(301, 799, 50)),
        (0.0, 0.5, range(501, 952, 50)),
        (0.5, 1.0, range(1, 499, 50)),
        (0.3, 0.3, range(0)),
    ],
)
def test_guidance_works_in_its_part_of_the_sampling(start: float, end: float, active: range) -> None:
    options = SampleOptions(cfg=1.0, strength=0.7, start_percent=start, end_percent=end)
    model = denoiser(options)
    euler(model, LQ, "epsilon", options)
    strengths = dict(zip((int(c.t[0]) for c in model.unet.calls), model.guidance.strengths, strict=True))
    assert strengths == {t: 0.7 if t in active else 0.0 for t in range(951, 0, -50)}


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


# -- one step ----------------------------------------------------------------------------------------------


def test_one_step_is_z_l_minus_the_prediction() -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((x, t))
        return 0.25 * x + 1

    torch.testing.assert_close(one_step(predict, LQ, 7), LQ - (0.25 * LQ + 1))
    ((x, t),) = seen
    assert torch.equal(x, LQ), "no noise is added and nothing is scaled"
    assert t.tolist() == [7, 7]


def test_one_step_reports_and_can_be_cancelled() -> None:
    calls: list[tuple[int, int]] = []
    model = denoiser(SampleOptions(cfg=1.0))
    result = restore_once(model, LQ, 999, lambda *a: calls.append(a))  # type: ignore[func-returns-value]
    torch.testing.assert_close(result.double(), LQ - answer(LQ, POSITIVE), atol=1e-3, rtol=1e-5)
    assert calls == [(1, 1)]
    with pytest.raises(Cancelled):
        restore_once(model, LQ, 999, lambda *_: False)


def test_the_dial_by_hand() -> None:
    called: list[str] = []

    def pixel(x: torch.Tensor, _t: torch.Tensor) -> torch.Tensor:
        called.append("pixel")
        return 0.25 * x

    def both(x: torch.Tensor, _t: torch.Tensor) -> torch.Tensor:
        called.append("both")
        return 0.5 * x + 1

    p, b = 0.25 * LQ, 0.5 * LQ + 1
    for strengths, expected, calls in (
        ((1.0, 1.0), b, ["both"]),
        ((1.0, 0.0), p, ["pixel"]),
        ((0.5, 0.5), 0.5 * b, ["both"]),
        ((0.0, 1.0), b - p, ["both", "pixel"]),
        ((1.2, 0.7), 1.2 * p + 0.7 * (b - p), ["both", "pixel"]),
    ):
        called.clear()
        z_h = one_step(dialled(pixel, both, Dial(*strengths)), LQ, 1)
        torch.testing.assert_close(z_h, LQ - expected)
        assert called == calls
    assert torch.equal(one_step(dialled(pixel, both, Dial()), LQ, 1), one_step(both, LQ, 1))
    assert torch.equal(one_step(dialled(pixel, both, Dial(1, 0)), LQ, 1), one_step(pixel, LQ, 1))


@pytest.mark.parametrize("bad", [{"pixel": -0.1}, {"semantic": 11.0}, {"pixel": float("nan")}])
def test_strengths_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(PGPError, match="strength must be 0 to 10"):
        Dial(**bad)
