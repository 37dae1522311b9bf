"""Means and intervals of a benchmark, against SciPy's bootstrap and Student's interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("scipy", reason='statistics need SciPy: pip install "pgp-diffsr[eval]"')

from scipy import stats

from pgp_core.evaluation.benchmark.results import Pair, Results, Row
from pgp_core.evaluation.benchmark.statistics import Bootstrap, statistics, tail_probability


def results(**rows: list[float | None]) -> Results:
    count = max(map(len, rows.values()))
    names = [f"p{i:03}" for i in range(count)]
    made = [
        Row(name, "folder", scores={n: {"psnr_y": v} for n, v in zip(names, values, strict=False)})
        for name, values in rows.items()
    ]
    return Results("pairs", [Pair(n) for n in names], made, ["psnr_y"])


@pytest.mark.parametrize("n", [5, 20, 200])
def test_intervals_of_normal_data_are_student_s(n: int) -> None:
    sample = np.random.default_rng(n).normal(27, 2, n)
    # Quantiles of a normal distribution as it should be, so that only the bootstrap's own error is left.
    sample = 27 + 2 * (sample - sample.mean()) / sample.std(ddof=1)
    low, high = Bootstrap(40_000).estimate(sample).interval or (0, 0)
    expected = stats.t.interval(0.95, n - 1, 27, 2 / math.sqrt(n))
    # A bootstrap of few pictures has their shape, not the bell's.
    tolerance = 0.25 if n == 5 else 0.05
    assert (low, high) == pytest.approx(expected, abs=tolerance * (expected[1] - expected[0]))


def test_intervals_are_the_bootstrap_s() -> None:
    sample = np.random.default_rng(1).gamma(2, 1, 60)
    ours = Bootstrap().estimate(sample)
    theirs = stats.bootstrap(
        (sample,), np.mean, confidence_level=1 - 2 * tail_probability(60), method="percentile", n_resamples=20_000,
        rng=np.random.default_rng(2),
    )  # fmt: skip
    assert ours.mean == pytest.approx(sample.mean())
    # Ends of 10,000 resamples are off by some hundredths of their spread.
    assert ours.interval == pytest.approx(theirs.confidence_interval, abs=0.15 * theirs.standard_error)


def test_the_same_values_have_the_same_interval() -> None:
    sample = [1.0, 4.0, 2.0, 8.0]
    assert Bootstrap().estimate(sample) == Bootstrap().estimate(sample)
    assert Bootstrap(seed=1).estimate(sample).interval is not None


def test_many_pictures_are_resampled_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = np.random.default_rng(3).normal(size=30)
    whole = Bootstrap(1000).means(sample)
    monkeypatch.setattr("pgp_core.evaluation.benchmark.statistics._BLOCK", 30 * 64)
    assert np.allclose(Bootstrap(1000).means(sample), whole)


def test_one_picture_has_no_interval() -> None:
    found = statistics(results(a=[3.0], b=[4.0]))
    assert found.means["a"]["psnr_y"].interval is None
    difference = found.differences["b"]["a"]["psnr_y"]
    assert (difference.mean, difference.interval, difference.beyond_chance) == (1.0, None, False)


def test_differences_are_paired() -> None:
    # Pictures differ far more than rows do.
    base = list(np.random.default_rng(4).normal(25, 5, 30))
    found = statistics(results(a=base, b=[x + 0.2 + 0.01 * (i % 3) for i, x in enumerate(base)]))
    difference = found.differences["b"]["a"]["psnr_y"]
    assert difference.mean == pytest.approx(0.21) and difference.beyond_chance
    low, high = difference.interval or (0, 0)
    assert 0.2 <= low <= high <= 0.22
    ours, theirs = (found.means[r]["psnr_y"].interval or (0, 0) for r in "ab")
    assert ours[1] > theirs[0], "the rows' own intervals would not tell"


def test_noise_is_not_beyond_chance() -> None:
    random = np.random.default_rng(5)
    found = statistics(results(a=list(random.normal(25, 1, 40)), b=list(random.normal(25, 1, 40))))
    assert not found.differences["b"]["a"]["psnr_y"].beyond_chance


@pytest.mark.parametrize(("count", "beyond"), [(5, False), (6, True)])
def test_few_pictures_are_never_beyond_chance(count: int, beyond: bool) -> None:
    found = statistics(results(a=[0.0] * count, b=[1.0] * count))
    assert found.differences["b"]["a"]["psnr_y"].beyond_chance is beyond


def test_only_pictures_of_both_rows_are_compared() -> None:
    found = statistics(results(a=[1.0, 2.0, 3.0, 4.0], b=[2.0, None, 4.0], c=[None, None, None, None]))
    difference = found.differences["b"]["a"]["psnr_y"]
    assert (difference.mean, difference.pictures) == (1.0, 2)
    assert found.means["b"]["psnr_y"].pictures == 2
    assert found.means["c"] == {} and found.differences["c"] == {}


def test_what_is_not_finite_is_left_out() -> None:
    found = statistics(results(a=[1.0, float("inf"), 3.0, float("nan")]))
    assert (found.means["a"]["psnr_y"].mean, found.means["a"]["psnr_y"].pictures) == (2.0, 2)
