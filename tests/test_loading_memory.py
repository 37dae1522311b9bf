"""What loading and converting take of memory, on a file of some 400 MB; Linux only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import memory
import pytest
from faithdiff_file import NARROW, WIDE, write_constant

pytestmark = pytest.mark.skipif(not memory.available(), reason="reads Linux's peak memory")

SUPPORT = Path(__file__).parent / "support"


@pytest.fixture(scope="module", params=["a.safetensors", "a.bin"])
def big(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path: Path = tmp_path_factory.mktemp("big") / request.param
    write_constant(path, WIDE)
    assert path.stat().st_size > 300e6
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("small") / "small.safetensors"
    write_constant(path, NARROW)
    return path


def _measure(what: str, file: Path, small: Path, folder: Path) -> Any:
    result = subprocess.run(
        [sys.executable, str(SUPPORT / "measure_loading.py"), what, str(file), str(small), str(folder)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    print(what, file.name, found)
    return found


def test_loading_with_a_plan_takes_what_is_kept(big: Path, small: Path, tmp_path: Path) -> None:
    found = _measure("load", big, small, tmp_path)
    assert 0.2 * big.stat().st_size < found["kept"] < 0.8 * big.stat().st_size
    assert found["peak"] <= 1.2 * found["kept"]
    assert found["kept"] * 0.9 < found["mapped"] <= 1.05 * found["kept"]


def test_conversion_streams(big: Path, small: Path, tmp_path: Path) -> None:
    if big.suffix != ".bin":
        pytest.skip("the published file is a .bin, and both kinds are mapped by the same code")
    found = _measure("convert", big, small, tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    assert found["peak"] <= 1.2 * found["kept"]


def test_conversion_of_the_older_format_streams(small: Path, tmp_path: Path) -> None:
    """Which cannot be mapped."""
    path = tmp_path / "old.bin"
    write_constant(path, WIDE)
    found = _measure("convert", path, small, tmp_path / "out")
    path.unlink()
    for file in (tmp_path / "out").iterdir():
        file.unlink()
    assert found["peak"] <= 1.2 * found["kept"]
