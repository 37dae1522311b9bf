"""What these tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from batch_runs import picture


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [picture(tmp_path / "in" / f"{name}.png", 50 * i) for i, name in enumerate("abc")]
