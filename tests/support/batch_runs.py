"""Runs of ``upscale`` over small pictures, and what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pgp_core.cli import main

Capture = pytest.CaptureFixture[str]


def picture(path: Path, level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (level, 120, 140)).save(path)
    return path


def run(*args: Any) -> int:
    """The exit status."""
    return main(["upscale", *map(str, args), "--scale", "1"])


def rows(capture: Capture) -> tuple[list[dict[str, Any]], str]:
    """Lines of JSON, and what people read."""
    said = capture.readouterr()
    return [json.loads(line) for line in said.out.splitlines()], said.err
