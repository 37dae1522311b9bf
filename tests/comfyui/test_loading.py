"""Memory of ComfyUI's loader with a plan; see ``checks/loading.py``. Linux only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faithdiff_file
import memory
import pytest

from .in_process import Checks, driving
from .locate import PACK, Comfy

pytestmark = pytest.mark.skipif(not memory.available(), reason="reads Linux's peak memory")

SECONDS = 300


@pytest.fixture(scope="module")
def checks(comfy: Comfy, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out: Path = tmp_path_factory.mktemp("loading")
    files = out / "files"
    files.mkdir()
    for ending in ("safetensors", "bin"):
        faithdiff_file.write_constant(files / f"small.{ending}", faithdiff_file.NARROW)
        faithdiff_file.write_constant(files / f"big.{ending}", faithdiff_file.WIDE)
    # A process of its own, since allocators keep what they had.
    with driving(comfy, PACK, out) as driver:
        result = driver.run(out, SECONDS, "loading")
    for file in files.iterdir():
        file.unlink()
    return result


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_loading_with_a_plan_takes_what_is_kept(ending: str, checks: Checks) -> None:
    found = checks["loading"][ending]
    print(ending, found)
    assert found["kept"] > 100e6
    assert found["peak"] <= 1.2 * found["kept"]
    assert found["kept"] * 0.9 < found["mapped"] <= 1.05 * found["kept"]
