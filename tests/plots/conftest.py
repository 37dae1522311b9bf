"""What these tests share."""

from __future__ import annotations

from typing import Any

import pytest

from pgp_core.plots import page


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures, as they are turned into pixels."""
    figures = []
    pixels = page.Page.pixels

    def seen(self: page.Page) -> Any:
        figures.append(self.figure)
        return pixels(self)

    monkeypatch.setattr(page.Page, "pixels", seen)
    return figures
