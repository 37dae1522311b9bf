"""What loading and converting take of memory, on a file of some 400 MB; Linux only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import memory
import pytest

pytestmark = pytest.mark.skipif(not memory.available(), reason="reads Linux's peak memory")

SUPPORT = Path(__file__).parent / "support"
#: The published file is a .bin. "old" is torch.save's older format, which cannot be mapped.
CASES = ("load:a.safetensors", "load:a.bin", "convert:a.bin", "convert:old.bin")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """What was measured of a case."""
    result = subprocess.run(
        [sys.executable, str(SUPPORT / "measure_loading.py"), str(tmp_path_factory.mktemp("big")), *CASES],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    by_case = {f"{row['what']}:{row['file']}": row for row in rows}
    assert tuple(by_case) == CASES
    assert all(row["size"] > 300e6 for row in rows)
    print(*rows, sep="\n")
    return by_case.__getitem__


@pytest.mark.parametrize("file", ["a.safetensors", "a.bin"])
def test_loading_with_a_plan_takes_what_is_kept(file: str, found: Callable[[str], Any]) -> None:
    row = found(f"load:{file}")
    assert 0.2 * row["size"] < row["kept"] < 0.8 * row["size"]
    assert row["peak"] <= 1.2 * row["kept"]
    assert row["kept"] * 0.9 < row["mapped"] <= 1.05 * row["kept"]


@pytest.mark.parametrize("file", ["a.bin", "old.bin"])
def test_conversion_streams(file: str, found: Callable[[str], Any]) -> None:
    row = found(f"convert:{file}")
    assert row["peak"] <= 1.2 * row["kept"]
