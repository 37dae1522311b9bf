"""Training: average, loop, data, degradation, pictures, losses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pgp_core import nano
from pgp_core.errors import CheckpointError
from pgp_core.guidance import Guidance, GuidanceSpec, Site
from pgp_core.training import loop
from pgp_core.training.data import Crops
from pgp_core.training.degradation import Degradation, degrade, fixed_recipe
from pgp_core.training.loop import LoopConfig, Trainer
from pgp_core.training.losses import OneStepLoss, ResidualDiffusionLoss
from pgp_core.training.model import EMA, Contexts, Restorer
from pgp_core.training.pictures import Painter, paint_set
from pgp_core.training.precision import prepare

Batch = tuple[torch.Tensor, torch.Tensor]


def small_model(seed: int = 0) -> torch.nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))


# -- average -----------------------------------------------------------------------------------------------


def test_ema_is_a_plain_loop_with_a_warm_start() -> None:
    model = small_model().double()
    model[2].bias.requires_grad_(False)
    ema = EMA(model, decay=0.5)
    expected = {n: p.detach().clone() for n, p in model.named_parameters()}
    for n in range(1, 15):
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(n)))
        ema.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        for name, p in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()
    assert set(ema.shadow) == {"0.weight", "0.bias", "2.weight"}, "frozen parameters have no average"
    twin = ema.averaged(model)
    assert not twin.training
    for name, p in twin.named_parameters():
        torch.testing.assert_close(p, expected[name])
    assert not torch.allclose(model[0].weight, twin[0].weight), "the model keeps its own weights"


# -- loop --------------------------------------------------------------------------------------------------


def loss_of(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
    """Noisy regression: all randomness from the generator."""
    x, y = batch
    return (model(x + 0.1 * torch.randn(x.shape, generator=generator)) - y).square().mean()


def batches(start: int, stop: int) -> Iterator[Batch]:
    for step in range(start, stop):
        g = torch.Generator().manual_seed(step)
        x = torch.randn(3, 4, generator=g)
        yield x, x.flip(1)


def stopping_after(steps: int) -> Callable[[int, int], Iterable[Batch]]:
    """Batches that run out."""
    return lambda start, stop: batches(start, min(stop, steps))


def killed_after(steps: int) -> Callable[[int, int], Iterable[Batch]]:
    """Batches whose source breaks, as a killed process does."""

    def source(start: int, stop: int) -> Iterator[Batch]:
        yield from batches(start, min(stop, steps))
        raise KeyboardInterrupt

    return source


def trainer(folder: Path, loss: Any = loss_of, seed: int = 0, **config: Any) -> Trainer:
    settings = {"steps": 6, "lr": 1e-2, "warmup": 2, "decay": 0.9, "save_every": 3, "log_every": 2} | config
    return Trainer(small_model(seed), loss, LoopConfig(**settings), folder)


def state_of(t: Trainer) -> dict[str, torch.Tensor]:
    """Everything that training changes."""
    moments = {f"optimizer.{i}.{k}": v for i, s in t.optimizer.state_dict()["state"].items() for k, v in s.items()}
    return dict(t.model.state_dict()) | {f"ema.{k}": v for k, v in t.ema.shadow.items()} | moments


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("broken", [False, True], ids=["ended", "killed"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(broken: bool, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    figures = whole.run(batches, progress=False)
    assert (figures["steps"], whole.step) == (6, 6)

    first = trainer(tmp_path / "parts")
    if broken:
        with pytest.raises(KeyboardInterrupt):
            first.run(killed_after(5), progress=False)
    else:
        first.run(stopping_after(3), progress=False)
    second = trainer(tmp_path / "parts", seed=9)
    assert second.resume()
    assert second.step == 3
    second.run(batches, progress=False)

    expected, result = state_of(whole), state_of(second)
    assert result.keys() == expected.keys()
    assert all(torch.equal(result[k], expected[k]) for k in expected)
    assert second.ema.updates == whole.ema.updates == 6
    assert not torch.equal(result["0.weight"], small_model().state_dict()["0.weight"])


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert not trainer(tmp_path).resume()


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).run(batches, progress=False)
    other = Trainer(torch.nn.Linear(4, 4), loss_of, LoopConfig(steps=6), tmp_path)
    with pytest.raises(CheckpointError, match="not from this run") as error:
        other.resume()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None], ids=["empty", "text", "truncated"])
def test_a_damaged_state_is_named(content: bytes | None, tmp_path: Path) -> None:
    trainer(tmp_path).run(stopping_after(3), progress=False)
    path = tmp_path / "state.pt"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(CheckpointError, match="is damaged") as error:
        trainer(tmp_path).resume()
    assert "\n" not in str(error.value)


def test_learning_rates_by_name(tmp_path: Path) -> None:
    """One step of Adam moves every weight by its learning rate, whatever the gradient."""
    t = trainer(tmp_path, lr_factors={"0.": 0.3}, weight_decay=0.0, warmup=1, steps=10)
    before = {k: v.clone() for k, v in t.model.state_dict().items()}
    t.run(stopping_after(1), progress=False)
    for name, value in t.model.state_dict().items():
        moved = (value - before[name]).abs()
        expected = torch.full_like(moved, 1e-2 * (0.3 if name.startswith("0.") else 1))
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-6)


def test_the_log(tmp_path: Path) -> None:
    losses: list[float] = []

    def noted(*args: Any) -> torch.Tensor:
        loss = loss_of(*args)
        losses.append(loss.item())
        return loss

    figures = trainer(tmp_path, noted).run(batches, progress=False)
    rows = rows_of(tmp_path)
    assert [r["step"] for r in rows] == [2, 4, 6]
    for i, row in enumerate(rows):
        assert row["loss"] == pytest.approx((losses[2 * i] + losses[2 * i + 1]) / 2)
        # The rate of that row's last step: warmed up over two steps, then half a cosine over six.
        step = 2 * i + 1
        assert row["lr"] == pytest.approx(1e-2 * min(1, (step + 1) / 2) * 0.5 * (1 + math.cos(math.pi * step / 6)))
        assert row["grad_norm"] > 0
        assert row["seconds"] >= 0
    assert figures["loss"] == pytest.approx(losses[-1])
    assert figures["config"]["lr"] == 1e-2
    json.dumps(figures)


def test_the_log_goes_on_after_resuming(tmp_path: Path) -> None:
    trainer(tmp_path).run(stopping_after(3), progress=False)
    second = trainer(tmp_path)
    second.resume()
    second.run(batches, progress=False)
    assert [r["step"] for r in rows_of(tmp_path)] == [2, 4, 6]


def test_a_loss_that_is_nan_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    def spoiled(model: Any, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        loss = loss_of(model, batch, generator)
        return loss * math.nan if broken.step == 4 else loss

    broken = trainer(tmp_path, spoiled)
    with pytest.raises(FloatingPointError, match="nan at step 4"):
        broken.run(batches, progress=False)
    good, expected = trainer(tmp_path, seed=9), trainer(tmp_path / "good")
    assert good.resume()
    assert good.step == 3
    expected.run(stopping_after(3), progress=False)
    assert all(torch.equal(v, state_of(expected)[k]) for k, v in state_of(good).items())


def test_a_gradient_that_is_not_finite_is_passed_over(tmp_path: Path) -> None:
    def steep(model: Any, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        # Finite, with an infinite slope.
        return (model[0].bias * 0).abs().sqrt().sum() if run.step == 2 else loss_of(model, batch, generator)

    run = trainer(tmp_path, steep, steps=3)
    assert run.run(stopping_after(2), progress=False)["skipped"] == 0
    before = {k: v.clone() for k, v in state_of(run).items()}
    assert run.run(batches, progress=False)["skipped"] == 1, "and it is said"
    assert run.step == 3
    assert all(torch.equal(v, before[k]) for k, v in state_of(run).items())


def test_the_time_budget_ends_the_run_and_its_cosine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    t = trainer(tmp_path, steps=1000, minutes=0.5, warmup=1, log_every=1)
    assert t.run(batches, progress=False)["steps"] == 2, "at 10 and 20 of 30 seconds"
    assert [r["lr"] for r in rows_of(tmp_path)] == [
        pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * share))) for share in (1 / 3, 2 / 3)
    ]
    again = trainer(tmp_path, steps=1000, minutes=0.5)
    assert again.resume()
    assert again.run(batches, progress=False)["steps"] == 2, "the budget is spent"


def test_a_checkpoint_that_cannot_be_written_leaves_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer(tmp_path).run(stopping_after(3), progress=False)

    def full(state: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    t = trainer(tmp_path)
    t.resume()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        t.run(batches, progress=False)
    monkeypatch.undo()
    again = trainer(tmp_path, seed=9)
    assert again.resume()
    assert again.step == 3


# -- model -------------------------------------------------------------------------------------------------


def test_contexts_row_1_is_the_positive() -> None:
    contexts = Contexts(6, 3, tokens=2)
    context, pooled = contexts(torch.tensor([True, False, True]))
    assert torch.equal(context, contexts.context[[1, 0, 1]])
    assert torch.equal(pooled, contexts.pooled[[1, 0, 1]])


@torch.no_grad()
def test_the_restorer_calls_the_unet_as_sampling_does(make_unet: Callable[..., Any], shape: Any) -> None:
    spec = GuidanceSpec(base="pgp-nano", sites=(Site("conv_in", 32, 0, 4, "add"),), channels=(32,), unshuffle=4)
    model = Restorer(make_unet(), Guidance(spec), shape)
    x, lq, t = torch.randn(2, 4, 16, 16), torch.rand(2, 3, 64, 64), torch.tensor([3, 900])
    out = model(x, t, lq, torch.tensor([False, True]))

    (features,) = model.guidance.features(lq)
    handle = model.unet.conv_in.register_forward_hook(lambda _m, _i, h: h + features)
    added = {"text_embeds": model.contexts.pooled, "time_ids": torch.tensor([nano.TIME_IDS] * 2)}
    expected = model.unet(x, t, model.contexts.context, added_cond_kwargs=added).sample
    handle.remove()
    torch.testing.assert_close(out, expected)


def test_the_bfloat16_set_up_computes_the_same_in_float32(
    make_unet: Callable[..., torch.nn.Module], call_unet: Callable[..., torch.Tensor]
) -> None:
    plain, prepared, untouched = make_unet(), make_unet(), make_unet()
    prepare(prepared, "bf16")
    prepare(untouched, "float32")
    assert list(prepared.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(call_unet(prepared), call_unet(plain), atol=1e-5, rtol=1e-5)
    assert torch.equal(call_unet(untouched), call_unet(plain))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = call_unet(prepared).float()
    assert mixed.isfinite().all()
    assert (mixed - call_unet(plain)).abs().max() < 0.1 * call_unet(plain).abs().max()


# -- pictures ----------------------------------------------------------------------------------------------


def test_pictures_depend_on_their_seeds_alone() -> None:
    one, same, other_bank = Painter(0, 64, tiles=3), Painter(0, 64, tiles=3), Painter(1, 64, tiles=3)
    a = [one.picture(np.random.default_rng(i)) for i in range(4)]
    for i in reversed(range(4)):
        assert np.array_equal(same.picture(np.random.default_rng(i)), a[i]), "in any order"
    assert not any(np.array_equal(a[i], a[j]) for i in range(4) for j in range(i))
    assert not np.array_equal(other_bank.picture(np.random.default_rng(0)), a[0])
    for picture in a:
        assert picture.shape == (64, 64, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 3, "not flat"


def test_a_set_is_drawn_once(tmp_path: Path) -> None:
    path = str(tmp_path / "set.npy")
    two = np.array(paint_set(path, 2, seed=3, size=32))
    assert two.shape == (2, 32, 32, 3)
    three = paint_set(str(tmp_path / "other.npy"), 3, seed=3, size=32)
    assert np.array_equal(three[:2], two), "the count does not change a picture"
    marked = np.zeros_like(two)
    np.save(path, marked)
    assert np.array_equal(paint_set(path, 2, seed=3, size=32), marked), "a set of the right shape is reused"
    assert np.array_equal(paint_set(path, 3, seed=3, size=32), three), "another shape is drawn anew"


# -- degradation -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    painter = Painter(0, 96, tiles=4)
    return np.stack([painter.picture(np.random.default_rng(i)) for i in range(3)])


def test_degrade_depends_on_its_seed_alone(pictures: np.ndarray) -> None:
    hq = Image.fromarray(pictures[0])
    one, same, other = (np.asarray(degrade(hq, 4, 1.0, 5.0, 80, np.random.default_rng(s))) for s in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.shape == (24, 24, 3)
    assert np.array_equal(np.asarray(hq), pictures[0]), "the picture stays"
    draws = [np.asarray(Degradation().draw(hq, np.random.default_rng(s))) for s in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_without_blur_and_noise_a_grey_picture_is_box_filtered(pictures: np.ndarray) -> None:
    grey = np.repeat(pictures[0].mean(2, keepdims=True).astype(np.uint8), 3, 2)
    lq = degrade(Image.fromarray(grey), 4, 0.0, 0.0, 95, np.random.default_rng(0))
    box = grey.reshape(24, 4, 24, 4, 3).mean((1, 3))
    # JPEG at quality 95 costs a level or two.
    assert np.abs(np.asarray(lq, np.float32) - box).mean() < 2.5
    assert np.abs(np.asarray(lq, np.float32) - np.roll(box, 1, 0)).mean() > 5


def test_blur_lowers_contrast_and_jpeg_coarsens(pictures: np.ndarray) -> None:
    hq = Image.fromarray(pictures[1])
    sharp, soft, coarse = (
        np.asarray(degrade(hq, 4, blur, 0.0, quality, np.random.default_rng(0)), np.float32)
        for blur, quality in ((0.0, 95), (6.0, 95), (0.0, 10))
    )
    assert np.abs(np.diff(soft, axis=0)).mean() < 0.8 * np.abs(np.diff(sharp, axis=0)).mean()
    box = pictures[1].reshape(24, 4, 24, 4, 3).mean((1, 3))
    assert np.abs(coarse - box).mean() > 1.5 * np.abs(sharp - box).mean()


def test_the_noise_s_standard_deviation_is_in_levels() -> None:
    grey = Image.new("RGB", (512, 512), (128, 128, 128))
    lq = np.asarray(degrade(grey, 4, 1.0, 10.0, 95, np.random.default_rng(0)), np.float32)
    luma = lq @ np.array([0.299, 0.587, 0.114], np.float32)
    # Independent noise in three channels, weighted as luma weights them; JPEG at 95 keeps luma.
    assert luma.std() == pytest.approx(10 * math.sqrt(0.299**2 + 0.587**2 + 0.114**2), rel=0.05)
    assert luma.mean() == pytest.approx(128, abs=0.5)


def test_the_fixed_recipe(pictures: np.ndarray) -> None:
    hq = Image.fromarray(pictures[2])
    expected = degrade(hq, 4, 1.0, 3.0, 80, np.random.default_rng(5), Image.Resampling.BOX)
    assert np.array_equal(np.asarray(fixed_recipe(hq, 5)), np.asarray(expected))
    assert fixed_recipe(hq).size == (24, 24)


# -- crops -------------------------------------------------------------------------------------------------


def test_a_batch_depends_on_seed_and_step_alone(pictures: np.ndarray) -> None:
    crops, same, other = (Crops(pictures, 3, 32, seed) for seed in (4, 4, 5))
    batch = crops.at(7)
    for x in batch:
        assert x.shape == (3, 3, 32, 32)
        assert x.dtype == torch.float32
        assert 0 <= x.min() <= x.max() <= 1
    crops.at(2)
    assert all(torch.equal(a, b) for a, b in zip(batch, crops.at(7), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(batch, same.at(7), strict=True))
    assert not torch.equal(batch[1], crops.at(8)[1])
    assert not torch.equal(batch[1], other.at(7)[1])


def test_the_stream_is_the_batches_in_order(pictures: np.ndarray) -> None:
    crops = Crops(pictures, 2, 32, 0)
    for step, batch in enumerate(crops.stream(3, 6), start=3):
        assert all(torch.equal(a, b) for a, b in zip(batch, crops.at(step), strict=True))
    assert step == 5


def test_lq_and_hq_show_the_same_place(pictures: np.ndarray) -> None:
    mild = Degradation(blur=(0.4, 0.4), noise=(0.0, 0.0), jpeg=(95, 95))
    lq, hq = Crops(pictures, 12, 32, 1, mild).at(0)

    def small(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 4)

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((small(a) - small(b))[..., 1:-1, 1:-1].abs().mean())

    aligned = distance(lq, hq)
    assert aligned < 0.03
    for axis in (-2, -1):
        for half_an_lq_pixel in (-2, 2):
            assert distance(lq, hq.roll(half_an_lq_pixel, axis)) > 1.2 * aligned


def test_hq_crops_are_cut_from_the_pictures(pictures: np.ndarray) -> None:
    _, hq = Crops(pictures[:1], 4, 64, 2).at(0)
    # A picture of 96 has one place for a crop of 64 with a margin of 16: its centre, turned or mirrored.
    centre = torch.from_numpy(pictures[0, 16:80, 16:80]).permute(2, 0, 1).float() / 255
    turned = [torch.rot90(x, k, (1, 2)) for x in (centre, centre.flip(2)) for k in range(4)]
    assert all(any(torch.equal(crop, x) for x in turned) for crop in hq)


# -- losses ------------------------------------------------------------------------------------------------


class Recorder(torch.nn.Module):
    """Notes what it is given and answers with a formula."""

    def forward(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        lq: torch.Tensor,
        positive: torch.Tensor,
        base: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self.x, self.t, self.lq, self.positive, self.base = x, t, lq, positive, base
        return 0.5 * x + 0.1

    @property
    def answer(self) -> np.ndarray:
        return 0.5 * self.x.double().numpy() + 0.1


def unshuffled(rgb: torch.Tensor) -> np.ndarray:
    """[-1, 1] and 48 channels of 4x4 pixels, by numpy: channel = colour * 16 + row * 4 + column."""
    b, c, h, w = rgb.shape
    x = rgb.double().numpy() * 2 - 1
    return x.reshape(b, c, h // 4, 4, w // 4, 4).transpose(0, 1, 3, 5, 2, 4).reshape(b, 48, h // 4, w // 4)


def pair(n: int = 8) -> Batch:
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, 16, 12, generator=g), torch.rand(n, 3, 16, 12, generator=g)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("negatives", [0.0, 0.5, 1.0])
def test_the_diffusion_loss_by_hand(prediction: str, negatives: float) -> None:
    lq, hq = pair()
    model = Recorder()
    loss = ResidualDiffusionLoss(12.0, prediction, negatives, (300, 999), std=2.0)(
        model, (lq, hq), torch.Generator().manual_seed(3)
    )
    assert torch.equal(model.lq, lq)
    if negatives in (0.0, 1.0):
        assert bool(model.positive.all()) == (negatives == 0.0)
        assert bool(model.positive.any()) == (negatives == 0.0)
    # x0 is known, so the noise that the loss drew can be read off x.
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    a = np.cumprod(1 - betas)[model.t.numpy()].reshape(-1, 1, 1, 1)
    x0 = 12.0 * (unshuffled(hq) - unshuffled(lq)) * model.positive.numpy().reshape(-1, 1, 1, 1)
    noise = (model.x.double().numpy() - np.sqrt(a) * x0) / np.sqrt(1 - a)
    assert noise.mean() == pytest.approx(0, abs=0.05)
    assert noise.std() == pytest.approx(1, abs=0.05)
    goal = {"epsilon": noise, "v_prediction": np.sqrt(a) * noise - np.sqrt(1 - a) * x0, "sample": x0}[prediction]
    # The variance of v = sqrt(a) noise - sqrt(1 - a) x0, where x0 has the standard deviation 2.
    weight = 1 / (a + 4 * (1 - a)) if prediction == "v_prediction" else 1
    assert loss.item() == pytest.approx((weight * np.square(model.answer - goal)).mean(), rel=1e-4)


def test_the_loss_s_randomness_is_the_generator_s() -> None:
    loss = ResidualDiffusionLoss(12.0)
    values = [loss(Recorder(), pair(), torch.Generator().manual_seed(s)).item() for s in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("window", [(0, 999), (900, 999)])
def test_timesteps_are_one_from_each_of_equal_strata(window: tuple[int, int]) -> None:
    model, seen = Recorder(), set()
    low, high = window
    for seed in range(40):
        ResidualDiffusionLoss(12.0, timesteps=window)(model, pair(), torch.Generator().manual_seed(seed))
        for i, t in enumerate(model.t.tolist()):
            # Rounded down from the stratum, whose borders need not be whole.
            assert int(low + i * (high - low + 1) / 8) <= t < low + (i + 1) * (high - low + 1) / 8
        seen.update(model.t.tolist())
    assert low <= min(seen) <= max(seen) <= high
    assert len(seen) > 60


def test_the_share_of_negatives() -> None:
    model = Recorder()
    drawn = []
    for seed in range(60):
        ResidualDiffusionLoss(12.0, negatives=0.1)(model, pair(), torch.Generator().manual_seed(seed))
        drawn += (~model.positive).tolist()
    assert sum(drawn) / len(drawn) == pytest.approx(0.1, abs=0.05)


def test_the_share_of_samples_without_the_additive_sites() -> None:
    model = Recorder()
    ResidualDiffusionLoss(12.0)(model, pair(), torch.Generator())
    assert model.base is None
    kept = []
    for seed in range(60):
        ResidualDiffusionLoss(12.0, drop_base=0.25)(model, pair(), torch.Generator().manual_seed(seed))
        assert model.base is not None
        kept += model.base.tolist()
    assert sum(kept) / len(kept) == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize("power", [1, 2])
def test_the_edges_of_the_one_step_loss_by_hand(power: int) -> None:
    lq, hq = pair()
    model = Recorder()
    plain, edged = (OneStepLoss(12.0, 999, power, e)(model, (lq, hq), torch.Generator()) for e in (0.0, 0.5))
    # The error as a picture: the latent's 48 channels are 3 colours of 4 x 4 pixels.
    error = 12.0 * unshuffled(lq) - model.answer - 12.0 * unshuffled(hq)
    e = error.reshape(8, 3, 4, 4, 4, 3).transpose(0, 1, 4, 2, 5, 3).reshape(8, 3, 16, 12)
    expected = 0.0
    for n in (1, 2, 4):
        for axis, side in ((2, 16), (3, 12)):
            total = np.cumsum(np.cumsum(np.pad(e, ((0, 0), (0, 0), (1, 0), (1, 0))), 2), 3)
            box = (total[..., n:, n:] - total[..., :-n, n:] - total[..., n:, :-n] + total[..., :-n, :-n]) / n**2
            first, second = (np.take(box, range(i, side - 2 * n + 1 + i), axis) for i in (0, n))
            expected += (np.abs(second - first) ** power).mean()
    assert (edged - plain).item() == pytest.approx(0.5 * expected, rel=1e-4)


@pytest.mark.parametrize("power", [1, 2])
def test_the_one_step_loss_by_hand(power: int) -> None:
    lq, hq = pair()
    model = Recorder()
    loss = OneStepLoss(12.0, 999, power)(model, (lq, hq), torch.Generator())
    z_l, z_h = 12.0 * unshuffled(lq), 12.0 * unshuffled(hq)
    np.testing.assert_allclose(model.x.double().numpy(), z_l, atol=1e-5)
    assert model.t.tolist() == [999] * 8
    assert model.positive.all()
    assert loss.item() == pytest.approx((np.abs(z_l - model.answer - z_h) ** power).mean(), rel=1e-5)
