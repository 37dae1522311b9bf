"""S1's loss on small models whose output is a formula; CSD's gradient by hand and by autograd."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from pgp_core import schedule
from pgp_core.codecs import pixel as pixel_codec
from pgp_core.conditioning.conditioning import Conditioning
from pgp_core.errors import PGPError
from pgp_core.restorers.nano import model as nano
from pgp_core.training.csd import CSD
from pgp_core.training.one_step_loss import S1Loss, make_s1_loss
from pgp_core.training.s1_config import PRESETS, S1LossConfig
from pgp_core.training.subject import Batch, Sample, Subject

#: Betas of SDXL, by numpy.
ALPHAS = np.cumprod(1 - np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2)


class ToyUNet(torch.nn.Module):
    """``gain * x + shift * (pooled of the conditioning)``."""

    def __init__(self, gain: float, shift: float = 0.0):
        super().__init__()
        self.gain, self.shift = (torch.nn.Parameter(torch.tensor(v)) for v in (gain, shift))

    def forward(self, x: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        return self.gain * x + self.shift * pooled.view(-1, 1, 1, 1)


class Toy(Subject):
    """Latents are twice a picture in [-1, 1], pixels stay pixels; the conditioning's pooled vector is 1 for a
    positive prompt and -1 for the negative."""

    def __init__(self, gain: float = 0.5, shift: float = 0.0, prediction: str = "epsilon", residual: bool = False):
        super().__init__()
        self.unet: Any = ToyUNet(gain, shift)
        self.guidance, self.prediction, self.negatives, self.s1_timestep = None, prediction, False, 7
        self.residual = residual
        self.calls: list[dict[str, Any]] = []

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return 2 * (2 * pictures - 1).detach()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return (z / 2 + 1) / 2

    def denoised(self, z_lq: torch.Tensor, z_hq: torch.Tensor) -> torch.Tensor:
        return z_hq - z_lq if self.residual else z_hq

    def conditioning(self, batch: Batch, positive: torch.Tensor) -> Conditioning:
        pooled = torch.where(positive, 1.0, -1.0)[:, None]
        return Conditioning(torch.zeros(len(batch), 1, 1), pooled, torch.zeros(len(batch), 6))

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, lq: torch.Tensor, conditioning: Conditioning, base: Any = None
    ) -> torch.Tensor:
        self.calls.append({"x": x.detach(), "t": t, "lq": lq, "pooled": conditioning.pooled, "grad": x.requires_grad})
        self.training_then = self.training
        return self.unet(x, conditioning.pooled).float()


def batch(n: int = 4, side: int = 16, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return Batch.of(
        [
            Sample(torch.rand(3, side, side, generator=g), torch.rand(3, side, side, generator=g), f"p{i}")
            for i in range(n)
        ]
    )


def only(**weights: float) -> S1LossConfig:
    """Some terms and nothing else."""
    zero = dict.fromkeys(("l1", "l2", "edges", "perceptual", "csd", "null_prompt"), 0.0)
    return S1LossConfig(**{**zero, **weights})  # type: ignore[arg-type]


def run(config: S1LossConfig, subject: Subject, b: Batch, score: Subject | None = None, seed: int = 0) -> Any:
    loss = make_s1_loss(config, subject, score)
    return loss(subject, b, torch.Generator().manual_seed(seed)), loss


# -- pixel terms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["picture", "latent"])
@pytest.mark.parametrize("power", [1, 2])
def test_pixel_terms_by_hand(space: str, power: int) -> None:
    subject, b = Toy(gain=0.25), batch()
    value, loss = run(dataclasses.replace(only(**{f"l{power}": 3.0}), space=space), subject, b)
    (call,) = subject.calls
    lq, hq = (2 * x.double().numpy() - 1 for x in (b.lq, b.hq))
    np.testing.assert_allclose(call["x"].numpy(), 2 * lq, atol=1e-6)
    assert call["t"].tolist() == [7] * 4
    assert torch.equal(call["lq"], b.lq)
    # z_H = z_L - 0.25 z_L, twice a picture in [-1, 1].
    error = 0.75 * lq - hq
    expected = (np.abs(error if space == "picture" else 2 * error) ** power).mean()
    assert loss.terms == {f"l{power}": pytest.approx(expected, rel=1e-5)}
    assert value.item() == pytest.approx(3 * expected, rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    config = dataclasses.replace(
        only(l1=1.5, l2=0.5, edges=0.25, perceptual=2.0, csd=0.125), measure="haarpsi+ms-ssim", csd_guidance=3.0
    )
    subject = Toy()
    value, loss = run(config, subject, batch(), Toy(shift=0.3))
    terms = loss.terms
    assert list(terms) == ["l1", "l2", "edges", "perceptual", "csd"]
    assert all(v > 0 for v in terms.values())
    assert value.item() == pytest.approx(sum(getattr(config, k) * v for k, v in terms.items()), rel=1e-5)
    value.backward()
    assert subject.unet.gain.grad.isfinite()


@pytest.mark.parametrize("timestep", [None, 0, 300])
def test_the_timestep_is_the_subject_s_unless_one_is_given(timestep: int | None) -> None:
    subject = Toy()
    run(dataclasses.replace(only(l2=1.0), timestep=timestep), subject, batch())
    assert subject.calls[0]["t"].tolist() == [7 if timestep is None else timestep] * 4


@pytest.mark.parametrize("negatives", [False, True])
def test_a_share_of_prompts_is_dropped_for_the_student_alone(negatives: bool) -> None:
    """Unless the negative prompt means the LQ canvas."""
    config = dataclasses.replace(only(l2=1.0, csd=1.0), null_prompt=0.25)
    subject, score, drawn = Toy(), Toy(), []
    subject.negatives = negatives
    loss = make_s1_loss(config, subject, score)
    for seed in range(60):
        loss(subject, batch(), torch.Generator().manual_seed(seed))
        drawn += subject.calls[-1]["pooled"].flatten().tolist()
        assert score.calls[-2]["pooled"].flatten().tolist() == [1.0] * 4
        assert score.calls[-1]["pooled"].flatten().tolist() == [-1.0] * 4
    assert drawn.count(-1.0) / len(drawn) == pytest.approx(0.0 if negatives else 0.25, abs=0.07)


def test_randomness_is_the_generator_s_alone() -> None:
    config = dataclasses.replace(only(l2=1.0, csd=1.0), null_prompt=0.5)
    values = [run(config, Toy(shift=0.2), batch(), Toy(shift=0.3), seed)[0].item() for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_a_latent_is_decoded_only_where_a_term_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Any, _z: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    monkeypatch.setattr(Toy, "decode", refuse)
    run(dataclasses.replace(only(l2=1.0, csd=1.0), space="latent"), Toy(), batch(), Toy())


def haar(e: np.ndarray) -> float:
    """Mean differences of neighbouring boxes of 1, 2 and 4 pixels, along both axes, summed."""
    total = 0.0
    for n in (1, 2, 4):
        sums = np.pad(e.cumsum(2).cumsum(3), ((0, 0), (0, 0), (1, 0), (1, 0)))
        box = (sums[..., n:, n:] - sums[..., :-n, n:] - sums[..., n:, :-n] + sums[..., :-n, :-n]) / n**2
        for axis in (2, 3):
            count = box.shape[axis] - n
            first, second = (np.take(box, range(i, count + i), axis) for i in (0, n))
            total += np.abs(second - first).mean()
    return total


class NanoToy(Toy):
    """With nano's latents."""

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return nano.SCALE * pixel_codec.encode(pictures)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return pixel_codec.decode(z / nano.SCALE)


def test_nano_s_first_stage_by_hand() -> None:
    """L1 of the latent, plus a quarter of its Haar detail as a picture, in the latent's units: 24 times [-1, 1]."""
    subject, b = NanoToy(gain=0.3), batch(side=32)
    value, loss = run(S1LossConfig("nano", 1), subject, b)
    lq, hq = (2 * x.double().numpy() - 1 for x in (b.lq, b.hq))
    error = nano.SCALE * (0.7 * lq - hq)
    assert value.item() == pytest.approx(np.abs(error).mean() + 0.25 * haar(error), rel=1e-5)
    assert loss.terms["edges"] == pytest.approx(haar(error) / nano.SCALE, rel=1e-5)


def test_a_wrapped_subject_is_called_through_its_wrapper() -> None:
    class Wrapper(torch.nn.Module):
        def __init__(self, module: Subject):
            super().__init__()
            self.module, self.called = module, 0

        def forward(self, *args: Any) -> torch.Tensor:
            self.called += 1
            return self.module(*args)

    subject = Toy()
    loss, wrapper = make_s1_loss(only(l2=1.0), subject), Wrapper(subject)
    value = loss(wrapper, batch(), torch.Generator())  # type: ignore[arg-type]
    assert wrapper.called == 1
    assert value.item() == run(only(l2=1.0), subject, batch())[0].item()


# -- CSD ---------------------------------------------------------------------------------------------------


def by_hand(score: Toy, x0: np.ndarray, guidance: float) -> np.ndarray:
    """CSD's gradient in float64, for the noise and the timesteps that the score model was shown."""
    first, second = score.calls[-2:]
    x, t = first["x"].double().numpy(), first["t"].numpy()
    assert torch.equal(first["x"], second["x"]) and torch.equal(first["t"], second["t"])
    a = ALPHAS[t].reshape(-1, 1, 1, 1)
    gain, shift = float(score.unet.gain), float(score.unet.shift)
    positive, negative = gain * x + shift, gain * x - shift

    def clean(out: np.ndarray) -> np.ndarray:
        if score.prediction == "epsilon":
            return (x - np.sqrt(1 - a) * out) / np.sqrt(a)
        if score.prediction == "v_prediction":
            return np.sqrt(a) * x - np.sqrt(1 - a) * out
        return out

    real, fake = clean(negative + guidance * (positive - negative)), clean(negative)
    return (fake - real) / np.abs(x0 - real).mean((1, 2, 3), keepdims=True)


@pytest.mark.parametrize("prediction", schedule.PREDICTIONS)
@pytest.mark.parametrize("residual", [False, True])
def test_csd_s_gradient_by_hand_and_by_autograd(prediction: str, residual: bool) -> None:
    score, b = Toy(0.4, 0.3, prediction, residual), batch()
    g = torch.Generator().manual_seed(1)
    z_lq = torch.randn(4, 3, 16, 16, generator=g)
    z = torch.randn(4, 3, 16, 16, generator=g, requires_grad=True)
    value = CSD(score, 7.5, (20, 500))(z_lq, z, b, torch.Generator().manual_seed(3))
    x0 = (z - z_lq if residual else z).detach()
    grad = by_hand(score, x0.double().numpy(), 7.5)
    assert value.item() == pytest.approx((grad**2).mean(), rel=1e-4)
    (by_autograd,) = torch.autograd.grad(value, z)
    np.testing.assert_allclose(by_autograd.numpy(), 2 * grad / grad.size, rtol=2e-4, atol=1e-9)
    # The same direction as autograd's on the surrogate <z, stopgrad(grad)>: nothing leaks through the score model.
    surrogate = 2 * (z * torch.from_numpy(grad).float()).sum() / z.numel()
    torch.testing.assert_close(by_autograd, torch.autograd.grad(surrogate, z)[0], rtol=2e-4, atol=1e-9)


def test_csd_noises_by_sdxl_s_schedule_and_draws_pisa_s_timesteps() -> None:
    score, seen = Toy(), set()
    csd, b = CSD(score, 7.5, (20, 500)), batch(8)
    z = torch.full((8, 3, 16, 16), 2.0)
    for seed in range(60):
        csd(z, z, b, torch.Generator().manual_seed(seed))
        call = score.calls[-1]
        seen.update(call["t"].tolist())
        a = ALPHAS[call["t"].numpy()].reshape(-1, 1, 1, 1)
        noise = (call["x"].double().numpy() - 2 * np.sqrt(a)) / np.sqrt(1 - a)
        assert noise.mean() == pytest.approx(0, abs=0.06)
        assert noise.std() == pytest.approx(1, abs=0.06)
    assert min(seen) >= 20 and max(seen) < 500
    assert min(seen) < 40 and max(seen) > 480


def test_csd_moves_towards_what_the_positive_prompt_says() -> None:
    """A score model that knows the clean latent of either prompt, 1 and -1: z is led to 1."""
    score = Toy(0.0, 1.0, "sample")
    csd, b = CSD(score, 1.0), batch()
    z = torch.zeros(4, 3, 16, 16, requires_grad=True)
    (grad,) = torch.autograd.grad(csd(z.detach(), z, b, torch.Generator()), z)
    assert bool((grad < 0).all())


def test_csd_is_nothing_where_both_prompts_agree_and_finite_where_z_is_what_is_wanted() -> None:
    z = torch.ones(4, 3, 16, 16, requires_grad=True)
    assert CSD(Toy(0.4, 0.0))(z, z, batch(), torch.Generator()).item() == 0
    exact = CSD(Toy(0.0, 1.0, "sample"), 1.0)(z, z, batch(), torch.Generator())
    assert exact.isfinite() and torch.autograd.grad(exact, z)[0].isfinite().all()


def test_the_score_model_is_frozen_stays_in_evaluation_and_keeps_its_dtype() -> None:
    score = Toy(0.4, 0.3).to(torch.bfloat16)
    subject = Toy()
    loss = make_s1_loss(only(csd=1.0), subject, score)
    loss.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(subject, batch(), torch.Generator())
    value.backward()
    assert not score.training and not score.training_then
    assert all(not p.requires_grad and p.grad is None and p.dtype == torch.bfloat16 for p in score.parameters())
    for call in score.calls:
        assert call["x"].dtype == call["lq"].dtype == call["pooled"].dtype == torch.bfloat16
        assert not call["grad"]
    assert subject.unet.gain.grad.isfinite()
    assert subject.unet.gain.grad != 0


# -- configuration -----------------------------------------------------------------------------------------


def test_the_named_presets_are_the_published_ones() -> None:
    first, second = PRESETS["paper"]
    assert (first.steps, second.steps) == (4000, 10000)
    assert all((s.rank, s.alpha, s.lr, s.batch, s.crop) == (16, 16, 5e-5, 16, 512) for s in (first, second))
    one, two = (S1LossConfig("paper", i).resolved() for i in (1, 2))
    assert (one.l2, one.perceptual, one.csd, one.measure, one.space) == (1, 2, 0, "lpips", "picture")
    assert (two.l2, two.perceptual, two.csd) == (0, 2, 1)
    one, two = (S1LossConfig("pisa-sr", i).resolved() for i in (1, 2))
    assert (one.l2, one.perceptual, one.csd) == (1, 0, 0)
    assert (two.l2, two.perceptual, two.csd) == (1, 2, 1)
    assert (two.csd_guidance, two.csd_from, two.csd_to, two.null_prompt) == (7.5, 0.02, 0.5, 0.5)
    assert PRESETS["pisa-sr"][1].second_lora
    assert "lpips" not in str([S1LossConfig("nano", i).resolved().measure for i in (2,)])


def test_what_is_given_overrides_the_preset_and_zero_counts() -> None:
    c = S1LossConfig("paper", 2, l2=0.5, csd=0.0, measure="haarpsi").resolved()
    assert (c.l2, c.perceptual, c.csd, c.measure) == (0.5, 2.0, 0.0, "haarpsi")
    assert c.resolved() == c


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"preset": "papre"}, ["paper, pisa-sr, nano", "papre"]),
        ({"stage": 3}, ["1 or 2"]),
        ({"space": "pixels"}, ["picture or latent"]),
        ({"measure": "lpisp"}, ["lpips, haarpsi, ms-ssim", "lpisp"]),
        ({"measure": "haarpsi+haarpsi"}, ["haarpsi+haarpsi"]),
        ({"l1": -1.0}, ["l1"]),
        ({"csd": float("nan")}, ["csd"]),
        ({"null_prompt": 1.5}, ["null_prompt"]),
        ({"timestep": 1000}, ["timestep", "999"]),
        ({"csd_from": 0.6}, ["csd_from", "csd_to"]),
        ({"l2": 0.0, "perceptual": 0.0}, ["no term", "perceptual"]),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(PGPError) as error:
        S1LossConfig(**given).resolved()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_csd_wants_a_score_model_of_its_own() -> None:
    subject = Toy()
    with pytest.raises(PGPError, match="no score model"):
        make_s1_loss(only(csd=1.0), subject)
    with pytest.raises(PGPError, match="another model"):
        make_s1_loss(only(csd=1.0), subject, subject)
    assert S1Loss(only(l2=1.0)).csd is None
