"""Classifier-free guidance and one step: against two calls apart, and by hand."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rounding
import torch
from draws import LQ, draw

from pgp_core.conditioning.conditioning import Conditioning
from pgp_core.errors import Cancelled, PGPError
from pgp_core.guidance.module import Guidance, GuidanceSpec, Site
from pgp_core.guidance.on_diffusers import guided
from pgp_core.sampling.denoiser import Denoiser
from pgp_core.sampling.euler import euler, restore_once
from pgp_core.sampling.one_step import Dial, dialled, one_step
from pgp_core.sampling.options import SampleOptions
from pgp_core.sampling.rules import X0

IDS = (512.0, 500.0, 0.0, 8.0, 512.0, 500.0)


POSITIVE = Conditioning.of_prompt(draw(20, 1, 5, 16), draw(21, 1, 16), IDS)


NEGATIVE = Conditioning.of_prompt(draw(22, 1, 5, 16), draw(23, 1, 16), (256.0, 250.0, 0.0, 8.0, 512.0, 500.0))


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
    """One site; notes the strength by the number of the UNet's call."""

    def __init__(self, calls: list[Any]) -> None:
        self.spec = SimpleNamespace(sites=(Site("conv_in", 4, 0, 4),))
        self.calls = calls
        self.strengths: dict[int, float] = {}

    def dtype_at(self, _site: int, _h: torch.Tensor, f: torch.Tensor) -> torch.dtype:
        return f.dtype

    def fuse(self, _site: int, h: torch.Tensor, _f: torch.Tensor, strength: float, *_: object) -> torch.Tensor:
        self.strengths[len(self.calls)] = strength
        return h


def denoiser(options: SampleOptions, negative: Conditioning | None = NEGATIVE) -> Any:
    unet = FakeUNet()
    guidance = FakeGuidance(unet.calls)
    return Denoiser(unet, guidance, (torch.zeros(1, 4, 5, 7),), POSITIVE, negative, options)  # type: ignore[arg-type]


def answer(x: torch.Tensor, c: Conditioning) -> torch.Tensor:
    """The fake UNet's formula for one conditioning."""
    return x.double() * (c.context.double().mean() + c.pooled.double().mean()) + c.time_ids.double().sum()


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
    assert call.time_ids.tolist() == NEGATIVE.time_ids.tolist() * 2 + [list(IDS)] * 2
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
                added = {"text_embeds": c.pooled, "time_ids": c.time_ids}
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
    strengths = {int(c.t[0]): model.guidance.strengths.get(i, 0.0) for i, c in enumerate(model.unet.calls)}
    assert strengths == {t: 0.7 if t in active else 0.0 for t in range(951, 0, -50)}


def test_one_step_is_z_l_minus_the_prediction() -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((x, t))
        return 0.25 * x + 1

    torch.testing.assert_close(one_step(predict, LQ, 7), LQ - (0.25 * LQ + 1))
    ((x, t),) = seen
    assert torch.equal(x, LQ), "no noise is added and nothing is scaled"
    assert t.tolist() == [7, 7]


@pytest.mark.parametrize("timestep", [1, 200, 999])
def test_one_step_by_x0_is_the_clean_latent_of_that_noise(timestep: int) -> None:
    """z_H = (z_L - sqrt(1 - a) e) / sqrt(a), in float64, with SDXL's products of alphas."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((x, t))
        return 0.25 * x + 1

    a = float(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[timestep])
    noise = 0.25 * LQ.double() + 1
    expected = (LQ.double() - (1 - a) ** 0.5 * noise) / a**0.5
    z_h = one_step(predict, LQ, timestep, X0)
    # The formula goes through numbers as large as both terms; it divides by 0.068 at the noisiest timestep.
    rounding.assert_same(z_h, expected, rounding.LAYER, LQ / a**0.5, noise / a**0.5)
    ((x, t),) = seen
    assert torch.equal(x, LQ) and t.tolist() == [timestep] * len(LQ)
    # What noise of that timestep was added to comes back.
    clean = draw(31, *LQ.shape)
    noised = (a**0.5 * clean.double() + (1 - a) ** 0.5 * draw(32, *LQ.shape).double()).float()
    back = one_step(lambda *_: draw(32, *LQ.shape), noised, timestep, X0)
    rounding.assert_same(back, clean, rounding.LAYER, noised / a**0.5, draw(32, *LQ.shape) / a**0.5)


def test_one_step_by_no_rule() -> None:
    with pytest.raises(ValueError, match="made by residual or x0, not by 'euler'"):
        one_step(lambda x, _t: x, LQ, 7, "euler")


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
