"""Hostile and damaged input: one clear line of ours, or it works. ``reproduce/fuzz.py`` runs any number of cases."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzzing import TARGETS, Prepared, run_case
from hypothesis import given, settings
from hypothesis import strategies as st

#: Some 300 cases in all.
EACH = 18


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("fuzz") / "prepared")


@pytest.mark.parametrize("target", TARGETS)
def test_it_works_or_it_is_one_clear_line(target: str, prepared: Prepared, tmp_path: Path) -> None:
    # The seed is drawn, not every choice: cases keep together what belongs together, and are the script's kind.
    @settings(max_examples=EACH, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32).map(random.Random))
    def case(rng: random.Random) -> None:
        run_case(target, rng, tmp_path / "case", prepared)

    case()
