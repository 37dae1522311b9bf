"""What these tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from sample_folders import smooth


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them in a folder below, two with captions."""
    pictures = tmp_path / "pictures"
    (pictures / "more").mkdir(parents=True)
    for i, (name, size) in enumerate({"a.png": (150, 200), "b.png": (180, 140), "more/c.png": (160, 160)}.items()):
        Image.fromarray(smooth(*size, seed=i)).save(pictures / name)
    (pictures / "a.txt").write_text("eine Brücke\n  im Nebel \n", encoding="utf-8")
    (pictures / "more" / "c.txt").write_text("\ufeffthird", encoding="utf-8")
    (pictures / "notes.txt").write_text("no caption")
    return pictures
