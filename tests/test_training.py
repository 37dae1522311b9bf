"""Training: subjects, data, degradation, pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pgp_core.guidance.module import Guidance, GuidanceSpec, Site
from pgp_core.restorers.nano import model as nano
from pgp_core.training.degradation import Degradation, degrade, fixed_recipe
from pgp_core.training.nano_subject import Contexts, NanoSubject
from pgp_core.training.painting import Painter, paint_set
from pgp_core.training.precision import prepare
from pgp_core.training.subject import Batch


def unshuffled(rgb: torch.Tensor) -> np.ndarray:
    """[-1, 1] and 48 channels of 4x4 pixels, by numpy: channel = colour * 16 + row * 4 + column."""
    b, c, h, w = rgb.shape
    x = rgb.double().numpy() * 2 - 1
    return x.reshape(b, c, h // 4, 4, w // 4, 4).transpose(0, 1, 3, 5, 2, 4).reshape(b, 48, h // 4, w // 4)


# -- subjects ----------------------------------------------------------------------------------------------


def test_contexts_row_1_is_the_positive() -> None:
    contexts = Contexts(6, 3, tokens=2)
    context, pooled = contexts(torch.tensor([True, False, True]))
    assert torch.equal(context, contexts.context[[1, 0, 1]])
    assert torch.equal(pooled, contexts.pooled[[1, 0, 1]])


@torch.no_grad()
def test_a_subject_calls_the_unet_as_sampling_does(make_unet: Callable[..., Any], shape: Any) -> None:
    spec = GuidanceSpec(base="pgp-nano", sites=(Site("conv_in", 32, 0, 4, "add"),), channels=(32,), unshuffle=4)
    model = NanoSubject(make_unet(), Guidance(spec), shape)
    x, lq, t = torch.randn(2, 4, 16, 16), torch.rand(2, 3, 64, 64), torch.tensor([3, 900])
    batch = Batch(lq, lq, ("", ""), torch.ones(2, 2), torch.ones(2, 2))
    conditioning = model.conditioning(batch, torch.tensor([False, True]))
    out = model(x, t, lq, conditioning)

    (features,) = model.guidance.features(lq)
    handle = model.unet.conv_in.register_forward_hook(lambda _m, _i, h: h + features)
    added = {"text_embeds": model.contexts.pooled, "time_ids": torch.tensor([nano.TIME_IDS] * 2)}
    expected = model.unet(x, t, model.contexts.context, added_cond_kwargs=added).sample
    plain = model.unet.__class__.forward
    handle.remove()
    torch.testing.assert_close(out, expected)
    without = plain(model.unet, x, t, model.contexts.context, added_cond_kwargs=added).sample
    mixed = model(x, t, lq, conditioning, base=torch.tensor([True, False]))
    torch.testing.assert_close(mixed, torch.stack([expected[0], without[1]]))


@torch.no_grad()
def test_nano_s_latents(make_unet: Callable[..., Any], shape: Any) -> None:
    model = NanoSubject(make_unet(), Guidance(nano.guidance_spec(None)), shape)
    lq, hq = torch.rand(2, 3, 16, 12), torch.rand(2, 3, 16, 12)
    z_lq, z_hq = model.encode(lq), model.encode(hq)
    np.testing.assert_allclose(z_hq.double().numpy(), nano.SCALE * unshuffled(hq), atol=1e-5)
    torch.testing.assert_close(model.decode(z_hq), hq)
    torch.testing.assert_close(model.denoised(z_lq, z_hq), z_hq - z_lq)


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
