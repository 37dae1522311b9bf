"""An interruption in each phase of a picture, and the next run on the same MODEL; see ``checks/interrupted.py``."""

from __future__ import annotations

from typing import Any

import pytest

from .in_process import Checks, Driver

#: A canvas of 144 x 128 pixels in tiles of 96 with an overlap of 16: two across, two down.
TILES, STEPS = 4, 2
WHOLE = {"encode": 1, "features": 6, "sampling": TILES * STEPS, "decode": 1}


@pytest.fixture(scope="module")
def checks(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    return driver.run(tmp_path_factory.mktemp("interrupted"), 200, "interrupted")


def test_undisturbed(checks: Checks) -> None:
    assert checks["interrupted_phases"]["undisturbed"] == WHOLE


@pytest.mark.parametrize(
    ("phase", "node", "calls"),
    [
        # Core's VAE nodes know no interruption: it is answered before the next node, whichever that is.
        ("encode", "", {"encode": 1, "features": 0, "sampling": 0, "decode": 0}),
        ("features", "KSampler", {"encode": 1, "features": 2, "sampling": 0, "decode": 0}),
        ("sampling", "KSampler", {"encode": 1, "features": 6, "sampling": TILES + 2, "decode": 0}),
        ("decode", "PGPDiffSRColorFix", WHOLE),
    ],
)
def test_an_interruption_is_answered_and_leaves_nothing_behind(
    phase: str, node: str, calls: dict[str, Any], checks: Checks
) -> None:
    found = checks["interrupted_phases"][phase]
    assert found["event"] == "execution_interrupted"
    assert found["node"] == (node or found["node"])
    assert found["no picture"]
    assert found["calls"] == calls
    assert "nano" in found["not run again"], "the MODEL of the interrupted run is the next run's, too"
    assert found["the next is the same"]
