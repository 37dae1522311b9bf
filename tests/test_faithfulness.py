"""Faithfulness against scikit-image and Pillow, and the map by what is to be seen on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio

from pgp_core.cli import main
from pgp_core.errors import PGPError
from pgp_core.evaluation.metrics import METRICS
from pgp_core.images import faithfulness as module
from pgp_core.images.delta_e import delta_e
from pgp_core.images.departures import departures
from pgp_core.images.faithfulness import MOST, describe, faithfulness

Array = npt.NDArray[np.float64]


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def array(picture: torch.Tensor) -> Array:
    return picture.movedim(0, -1).double().numpy()


def reduced(picture: Array, width: int, height: int) -> Array:
    """By Pillow alone."""
    planes = [Image.fromarray(picture[..., i].astype(np.float32)) for i in range(3)]
    small = [np.asarray(p.resize((width, height), Image.Resampling.LANCZOS)) for p in planes]
    return np.stack(small, -1).clip(0, 1).astype(np.float64)


# -- CIEDE2000 ----------------------------------------------------------------------------------------------------


def test_differences_of_colour_are_scikit_images() -> None:
    """All colours, near ones, greys against each other and against colours, black and white."""
    random = np.random.default_rng(0)
    a, b = random.random((2, 40_000, 3))
    a[:4000], b[2000:6000] = a[:4000, :1], b[2000:6000, :1]
    b[6000:20_000] = (a[6000:20_000] + 0.01 * random.standard_normal((14_000, 3))).clip(0, 1)
    a[-6:], b[-6:] = np.repeat([[0.0] * 3, [1.0] * 3], 3, 0), [[0.0] * 3, [1.0] * 3, [1, 0, 0]] * 2
    expected = deltaE_ciede2000(rgb2lab(a), rgb2lab(b))
    np.testing.assert_allclose(delta_e(a, b), expected, atol=1e-9)
    assert delta_e(a, a).max() == 0


# -- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("small", "large"),
    [((20, 30), (80, 120)), ((21, 13), (32, 20)), ((300, 7), (571, 13)), ((9, 9), (9, 9)), ((1, 1), (4, 4))],
)
def test_numbers_are_scikit_images_of_pillows_lanczos(small: tuple[int, int], large: tuple[int, int]) -> None:
    """Whole ratios, halves rounded, more rows than are compared at once, the same size, one pixel."""
    result, source = draw(0, 3, *large), draw(1, 3, *small)
    (found,) = faithfulness(result[None], source[None])
    one, other = reduced(array(result), small[1], small[0]), array(source)
    # Lanczos' weights are rounded for each strip by itself.
    assert found.db == pytest.approx(peak_signal_noise_ratio(other, one, data_range=1), abs=1e-4)
    differences = deltaE_ciede2000(rgb2lab(one), rgb2lab(other))
    assert found.delta_e == pytest.approx(differences.mean(), abs=1e-3)
    np.testing.assert_allclose(found.differences, differences, atol=1e-2)


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    result, source = draw(2, 1, 3, 331, 200), draw(3, 1, 3, 100, 60)
    (whole,) = faithfulness(result, source)
    monkeypatch.setattr(module, "STRIP", 7)
    (strips,) = faithfulness(result, source)
    assert strips.db == pytest.approx(whole.db, abs=1e-5)
    np.testing.assert_allclose(strips.differences, whole.differences, atol=1e-3)


def test_a_smaller_result_is_compared_at_its_own_size() -> None:
    result, source = draw(4, 3, 20, 30), draw(5, 3, 41, 60)
    (found,) = faithfulness(result[None], source[None])
    assert found.differences.shape == (20, 30)
    expected = peak_signal_noise_ratio(array(result), reduced(array(source), 30, 20), data_range=1)
    assert found.db == pytest.approx(expected, abs=1e-4)


def test_equal_pictures_have_a_number_that_json_has() -> None:
    for shape in ((3, 8, 8), (1, 8, 8), (4, 8, 8)):
        picture = draw(6, 1, *shape)
        (found,) = faithfulness(picture, picture)
        assert (found.db, found.delta_e) == (MOST, 0)
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 32, 32)
    (found,) = faithfulness(white, black)
    assert found.db == pytest.approx(0, abs=1e-6) and found.delta_e == pytest.approx(100, abs=1e-3)


def test_more_detail_is_less_faithful_and_another_picture_is_not_at_all() -> None:
    """An enlarged photograph, the photograph itself, one with another face."""
    hq = torch.from_numpy(data.astronaut()).movedim(-1, 0)[None].float() / 255
    small = torch.nn.functional.avg_pool2d(hq, 4)
    enlarged = torch.nn.functional.interpolate(small, scale_factor=4, mode="bicubic").clamp(0, 1)
    dbs = [next(faithfulness(x, small)).db for x in (enlarged, hq, hq.flip(-1))]
    assert dbs[0] > dbs[1] > 25 > 15 > dbs[2]


def test_batches_and_kinds() -> None:
    results, inputs = draw(7, 3, 3, 32, 48), draw(8, 3, 3, 16, 24)
    alone = [next(faithfulness(results[i : i + 1], inputs[i : i + 1])).db for i in range(3)]
    assert [f.db for f in faithfulness(results, inputs)] == alone
    one = [f.db for f in faithfulness(results, inputs[:1])]
    assert one[0] == alone[0] and one[1] == next(faithfulness(results[1:2], inputs[:1])).db
    (half,) = faithfulness(results[:1].half(), inputs[:1].half())
    assert half.db == pytest.approx(alone[0], abs=0.01)
    grey = draw(9, 1, 1, 16, 24)
    assert next(faithfulness(results[:1], grey)).db == next(faithfulness(results[:1], grey.expand(-1, 3, -1, -1))).db
    with pytest.raises(PGPError, match="3 results cannot be compared with 2 inputs"):
        next(faithfulness(results, inputs[:2]))
    with pytest.raises(PGPError, match="48 x 32 pixels and the input 24 x 40, which has other proportions"):
        next(faithfulness(results, draw(10, 1, 3, 40, 24)))


@pytest.mark.parametrize("whose", ["input", "result"])
def test_only_what_is_seen_counts(whose: str) -> None:
    source, result = draw(11, 4, 20, 20), draw(12, 4, 80, 80)
    source[3] = result[3] = 1
    (source if whose == "input" else result)[3, :, : 10 if whose == "input" else 40] = 0
    (found,) = faithfulness(result[None], source[None])
    for hidden in (0.0, 1.0):
        other, another = source.clone(), result.clone()
        (other if whose == "input" else another)[:3, :, : 10 if whose == "input" else 40] = hidden
        (again,) = faithfulness(another[None], other[None])
        assert again.db == pytest.approx(found.db, abs=0.2)
    opaque = source.clone()
    opaque[3] = 1
    (all_of_it,) = faithfulness(torch.cat([result[:3], torch.ones(1, 80, 80)])[None], opaque[None])
    seen = reduced(array(result[:3]), 20, 20)[:, 12:], array(source[:3])[:, 12:]
    assert found.db == pytest.approx(peak_signal_noise_ratio(*seen, data_range=1), abs=0.8)
    assert all_of_it.db != found.db
    nothing = torch.cat([draw(13, 3, 8, 8), torch.zeros(1, 8, 8)])[None]
    assert next(faithfulness(draw(14, 1, 3, 8, 8), nothing)).db == MOST


def test_words() -> None:
    assert describe([(27.24, 4.06)]) == "27.2 dB faithful, mean ΔE 4.1"
    assert describe([(MOST, 0.0)]) == "the same as its input, mean ΔE 0.0"
    assert describe([(20.0, 5.0), (30.0, 1.0)]).splitlines() == [
        "2 pictures: 25.0 dB faithful (20.0 to 30.0), mean ΔE 3.0",
        "1: 20.0 dB faithful, mean ΔE 5.0",
        "2: 30.0 dB faithful, mean ΔE 1.0",
    ]


# -- the map ------------------------------------------------------------------------------------------------------


def colourful(x: torch.Tensor) -> torch.Tensor:
    """How far from grey each pixel is."""
    return x.amax(0) - x.amin(0)


def a_map(result: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    (found,) = faithfulness(result[None], source[None])
    return departures(result, found)


def test_a_departure_is_coloured_where_it_is_and_the_rest_is_grey() -> None:
    source = 0.2 + 0.3 * draw(15, 3, 1, 1).expand(-1, 64, 96)
    result = source.repeat_interleave(4, -1).repeat_interleave(4, -2).clone()
    result[:, 32:96, 64:160] += torch.tensor([0.1, 0.0, -0.03])[:, None, None]
    drawn = a_map(result, source)
    # 384x256 pixels as 512x341, and the scale.
    assert drawn.shape[-1] == 512 and 370 < drawn.shape[-2] < 420
    place = (slice(None), slice(52, 118), slice(95, 203))
    inside, outside = colourful(drawn[place]), colourful(drawn[:, 180:340, 260:])
    assert inside.min() > 0.3 and outside.max() < 1e-6
    # Twice the departure is lighter, which a reader in grey sees too.
    more = source.repeat_interleave(4, -1).repeat_interleave(4, -2).clone()
    more[:, 32:96, 64:160] += 2 * torch.tensor([0.1, 0.0, -0.03])[:, None, None]
    assert a_map(more, source)[place].mean() > drawn[place].mean() + 0.05


def test_the_scale_is_beneath_and_is_colours_that_grow_lighter() -> None:
    source = torch.full((3, 32, 32), 0.5)
    drawn = a_map(source.repeat_interleave(4, -1).repeat_interleave(4, -2), source)
    assert colourful(drawn[:, :512]).max() < 1e-6
    beneath = drawn[:, 512:]
    assert 30 < beneath.shape[-2] < 80
    bar = beneath[:, 14][:, 100:470].mean(0)
    assert bar[-1] > bar[200] > bar[0] > 0.2
    assert (beneath.amin(0) > 0.9).sum() > 100, "numbers in white"


@pytest.mark.parametrize(
    ("size", "expected"), [((8, 8), 512), ((600, 400), 600), ((4096, 4096), 2048), ((1, 700), 700), ((700, 1), 700)]
)
def test_sizes_of_maps(size: tuple[int, int], expected: int) -> None:
    result = draw(16, 1, 1, 1).expand(3, *size)
    small = tuple(-(-n // 4) for n in size)
    drawn = a_map(result, draw(16, 1, 1, 1).expand(3, *small))
    assert drawn.dtype == torch.float32 and bool(drawn.isfinite().all())
    assert abs(max(drawn.shape[-1], round(drawn.shape[-1] * size[0] / size[1])) - expected) <= 350 // min(size)
    assert drawn.min() >= 0 and drawn.max() <= 1


def test_transparent_and_grey_maps() -> None:
    source, result = draw(17, 4, 16, 16), draw(18, 4, 64, 64)
    source[3], result[3] = 1, 1
    source[3, :8], result[3, :32] = 0, 0
    drawn = a_map(result, source)
    assert drawn[:, :200].max() < 0.05 and colourful(drawn[:, 300:500]).mean() > 0.3
    assert a_map(draw(19, 1, 32, 32), draw(20, 1, 16, 16)).shape[0] == 3


# -- the command line ---------------------------------------------------------------------------------------------


def test_upscale_says_it_of_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph = Image.fromarray(data.astronaut()).crop((180, 0, 340, 120)).resize((40, 30))
    photograph.save(tmp_path / "rgb.png")
    photograph.convert("L").save(tmp_path / "grey.png")
    assert main(["upscale", str(tmp_path), "-o", str(tmp_path / "out"), "--json"]) == 0
    said = capsys.readouterr()
    rows = {Path(row["input"]).stem: row for row in map(json.loads, said.out.splitlines())}
    for name, row in rows.items():
        one, other = (
            torch.from_numpy(np.array(Image.open(row[which]).convert("RGB"))).movedim(-1, 0)[None].float() / 255
            for which in ("output", "input")
        )
        (found,) = faithfulness(one, other)
        assert row["faithfulness_db"] == pytest.approx(found.db, abs=0.006), name
        assert row["faithfulness_delta_e"] == pytest.approx(found.delta_e, abs=0.006), name
        assert f"s, {row['faithfulness_db']:.1f} dB faithful" in said.err
        if name == "rgb":
            arrays = array(one[0]), array(other[0])
            for metric in ("faithfulness_db", "faithfulness_delta_e"):
                measure = METRICS[metric].measure
                assert measure is not None and measure(*arrays) == pytest.approx(row[metric], abs=0.006)
    assert len(rows) == 2
    command = ["upscale", str(tmp_path / "rgb.png"), "-o", str(tmp_path / "near.png"), "--json", "--fidelity", "2"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["faithfulness_db"] > rows["rgb"]["faithfulness_db"] + 2
