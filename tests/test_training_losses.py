"""What fine-tuning minimises, against formulas in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from pgp_core.conditioning.conditioning import Conditioning
from pgp_core.training.diffusion_loss import DiffusionLoss
from pgp_core.training.subject import Batch, Subject


class Recorder(Subject):
    """Latents are pictures times a factor; it notes what it is given and answers with a formula."""

    guidance = None

    def __init__(self, prediction: str = "epsilon", negatives: bool = False, residual: bool = False):
        super().__init__()
        self.prediction, self.negatives, self.residual = prediction, negatives, residual

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures * 4 - 2

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return (z + 2) / 4

    def denoised(self, z_lq: torch.Tensor, z_hq: torch.Tensor) -> torch.Tensor:
        return z_hq - z_lq if self.residual else z_hq

    def conditioning(self, batch: Batch, positive: torch.Tensor) -> Conditioning:
        self.positive = positive
        return Conditioning(positive, positive, positive)

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, lq: torch.Tensor, conditioning: Any, base: torch.Tensor | None = None
    ) -> torch.Tensor:
        self.x, self.t, self.lq, self.base = x, t, lq, base
        assert conditioning.context is self.positive
        return 0.5 * x + 0.1

    @property
    def answer(self) -> np.ndarray:
        return 0.5 * self.x.double().numpy() + 0.1


def batch(n: int = 8) -> Batch:
    g = torch.Generator().manual_seed(0)
    lq, hq = torch.rand(2, n, 3, 16, 12, generator=g)
    return Batch(lq, hq, ("",) * n, torch.ones(n, 2), torch.zeros(n, 2))


def called(loss: DiffusionLoss, model: Recorder, seed: int = 3) -> float:
    return loss(model, batch(), torch.Generator().manual_seed(seed)).item()


def alphas(t: torch.Tensor) -> np.ndarray:
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    return np.cumprod(1 - betas)[t.numpy()].reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("kind", ["full", "residual"])
@pytest.mark.parametrize("dropped", [0.0, 0.5, 1.0])
def test_the_loss_by_hand(prediction: str, power: int, kind: str, dropped: float) -> None:
    nano = kind == "residual"
    model = Recorder(prediction, negatives=nano, residual=nano)
    settings = {"latent_std": 2.0, "stratified": True} if nano else {}
    loss = called(DiffusionLoss(power, (300, 999), prompt_dropout=dropped, **settings), model)
    assert torch.equal(model.lq, batch().lq)
    if dropped in (0.0, 1.0):
        assert bool(model.positive.all()) == bool(model.positive.any()) == (dropped == 0.0)
    # x0 is known, so the noise that the loss drew can be read off x.
    a = alphas(model.t)
    z_lq, z_hq = (4 * x.double().numpy() - 2 for x in (batch().lq, batch().hq))
    x0 = (z_hq - z_lq) * model.positive.numpy().reshape(-1, 1, 1, 1) if nano else z_hq
    noise = (model.x.double().numpy() - np.sqrt(a) * x0) / np.sqrt(1 - a)
    assert noise.mean() == pytest.approx(0, abs=0.05)
    assert noise.std() == pytest.approx(1, abs=0.05)
    goal = {"epsilon": noise, "v_prediction": np.sqrt(a) * noise - np.sqrt(1 - a) * x0, "sample": x0}[prediction]
    error = np.abs(model.answer - goal) ** power
    if nano and prediction == "v_prediction":
        # The variance of v = sqrt(a) noise - sqrt(1 - a) x0, where x0 has the standard deviation 2.
        error /= (a + 4 * (1 - a)) ** (power / 2)
    assert loss == pytest.approx(error.mean(), rel=1e-4)


def test_the_noise_s_offset_is_a_constant_of_each_channel_and_is_predicted() -> None:
    """With a perfect answer the loss is zero, and what was noise has the variance of both parts."""
    seen = []

    class Perfect(Recorder):
        def forward(self, x: torch.Tensor, t: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            a = torch.from_numpy(alphas(t))
            noise = (x.double() - a.sqrt() * (4 * batch().hq.double() - 2)) / (1 - a).sqrt()
            seen.append(noise)
            return noise.float()

    for seed in range(20):
        assert called(DiffusionLoss(noise_offset=0.5, timesteps=(400, 999)), Perfect(), seed) < 1e-5
    noise = torch.cat(seen)
    means = noise.mean((2, 3))
    # A channel's mean has the offset's variance, and that of the mean of 192 numbers.
    assert means.var() == pytest.approx(0.25 + 1 / 192, rel=0.2)
    assert (noise - means[..., None, None]).var() == pytest.approx(1, rel=0.03)


def test_the_randomness_is_the_generator_s() -> None:
    loss = DiffusionLoss(noise_offset=0.1, prompt_dropout=0.3, drop_base=0.3)
    values = [called(loss, Recorder(), seed) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("window", [(0, 999), (900, 999)])
def test_stratified_timesteps_are_one_from_each_of_equal_strata(window: tuple[int, int]) -> None:
    model, seen = Recorder(), set()
    low, high = window
    for seed in range(40):
        called(DiffusionLoss(timesteps=window, stratified=True), model, seed)
        for i, t in enumerate(model.t.tolist()):
            # Rounded down from the stratum, whose borders need not be whole.
            assert int(low + i * (high - low + 1) / 8) <= t < low + (i + 1) * (high - low + 1) / 8
        seen.update(model.t.tolist())
    assert low <= min(seen) <= max(seen) <= high
    assert len(seen) > 60


def test_timesteps_are_uniform() -> None:
    model, drawn = Recorder(), []
    for seed in range(250):
        called(DiffusionLoss(), model, seed)
        drawn += model.t.tolist()
    counts, _ = np.histogram(drawn, 10, (0, 1000))
    # Of 2000 draws, 200 in each tenth; the standard deviation is 13.
    assert np.abs(counts - 200).max() < 55
    assert 0 <= min(drawn) <= max(drawn) <= 999


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_shares_of_dropped_prompts_and_additive_sites(share: float) -> None:
    model = Recorder()
    called(DiffusionLoss(), model)
    assert model.base is None
    dropped, without = [], []
    for seed in range(100):
        called(DiffusionLoss(prompt_dropout=share, drop_base=share), model, seed)
        dropped += (~model.positive).tolist()
        assert model.base is not None
        without += (~model.base).tolist()
    assert np.mean(dropped) == pytest.approx(share, abs=0.05)
    assert np.mean(without) == pytest.approx(share, abs=0.05)
    assert np.mean(np.logical_and(dropped, without)) == pytest.approx(share**2, abs=0.04), "one knows not of the other"
