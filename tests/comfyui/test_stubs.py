"""The stubs by which nodes are type-checked where there is no ComfyUI."""

from __future__ import annotations

import pytest

from .in_process import Driver

SECONDS = 100


def test_they_say_what_comfyui_has(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> None:
    checks = driver.run(tmp_path_factory.mktemp("stubs"), SECONDS, "stubs")
    assert checks["stubs"]["files"] > 15
    assert checks["stubs"]["wrong"] == []
