"""Pictures as people have them through ``pgp-diffsr upscale``: all are done, and what is left out is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from found_pictures import camera_exif, camera_file, levels, packet
from PIL import Image

from pgp_core.cli import main

pytest.importorskip("pyvips")


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A camera's JPEG as TIFF, which it could not be before; damaged EXIF; an animation."""
    folder = tmp_path / "in"
    folder.mkdir()
    camera_file(folder / "camera.jpg", camera_exif(), packet())
    (folder / "plain.jpg").unlink()
    camera_file(folder / "damaged.png", camera_exif()[:100])
    frames = [Image.fromarray(levels(12, 10, 3, seed=i)) for i in range(2)]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    (folder / "paper.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n")
    out = tmp_path / "out"
    assert main(["upscale", str(folder), "-o", str(out), "--format", "tiff", "--scale", "2", "--json"]) == 1
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert {Path(row["input"]).name for row in rows if "width" in row} == {"camera.jpg", "damaged.png", "moving.webp"}
    lines = said.err.splitlines()
    for name, what in {
        "camera": "maker's note",
        "damaged": "left out: EXIF",
        "moving": "it holds 2 pictures: the first one is taken",
        "paper": "EPS or PostScript",
    }.items():
        assert any(name in line and what in line for line in lines), said.err
    with Image.open(out / "camera.tif") as result:
        # Upright: it lay on its side.
        assert result.size == (80, 120) and result.getexif().get_ifd(0x8825)[1] == "N"


def test_a_size_that_the_format_does_not_hold_is_said_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pgp_core.restorers import upscale

    def computed(*_: object) -> None:
        raise AssertionError("minutes for nothing")

    monkeypatch.setattr(upscale, "upscale", computed)
    Image.fromarray(np.zeros((1, 4096, 3), np.uint8)).save(tmp_path / "a.png")
    assert main(["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--format", "webp"]) == 1
    assert "webp holds 16383 pixels a side, not 16384x4" in capsys.readouterr().err
