"""Files of several pictures: the first, or the main one, and a line that says so."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from found_pictures import levels, with_segments
from PIL import Image

from pgp_core.images.reading import open_picture

tifffile = pytest.importorskip("tifffile")

FRAMES = [Image.fromarray(levels(12, 10, 3, seed=i) // 128 * 255) for i in range(3)]


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_the_first_frame_of_an_animation(suffix: str, tmp_path: Path) -> None:
    FRAMES[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=FRAMES[1:], lossless=True, duration=50)
    picture = open_picture(tmp_path / f"a{suffix}")
    assert np.array_equal(picture.pixels, np.asarray(FRAMES[0]))
    assert picture.notes == ("it holds 3 pictures: the first one is taken",)
    # What is written is one picture.
    assert picture.enlarged(picture.rgb()[0]).notes == ()


def test_an_animation_with_a_broken_end(tmp_path: Path) -> None:
    FRAMES[0].save(tmp_path / "a.gif", save_all=True, append_images=FRAMES[1:])
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(data[:-40])
    assert np.array_equal(open_picture(tmp_path / "a.gif").pixels, np.asarray(FRAMES[0]))


@pytest.mark.parametrize("deep", [False, True])
def test_the_first_page_of_a_tiff(deep: bool, tmp_path: Path) -> None:
    pages = [levels(8, 8 + i, 3, high=65536 if deep else 256, seed=i) for i in range(3)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            file.write(page, photometric="rgb")
    picture = open_picture(tmp_path / "a.tif")
    assert np.array_equal(picture.pixels, pages[0])
    assert picture.notes == ("it holds 3 pictures: the first one is taken",)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("inside", [False, True], ids=["pages", "sub-directories"])
def test_the_full_page_of_a_pyramid(inside: bool, deep: bool, tmp_path: Path) -> None:
    full = levels(64, 64, 3, high=65536 if deep else 256)
    half = np.ascontiguousarray(full[::2, ::2])
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        if inside:
            file.write(full, photometric="rgb", subifds=1)
            file.write(half, photometric="rgb", subfiletype=1)
        else:
            # The small one first, as scanners write it.
            file.write(half, photometric="rgb", subfiletype=1)
            file.write(full, photometric="rgb", tile=(16, 16))
            file.write(half[::2, ::2].copy(), photometric="rgb", subfiletype=1)
    picture = open_picture(tmp_path / "a.tif")
    assert np.array_equal(picture.pixels, full) and picture.notes == ()


def test_the_main_picture_of_a_phone(tmp_path: Path) -> None:
    """MPO: a JPEG with a second one behind it, and a directory of both."""
    buffer = io.BytesIO()
    FRAMES[0].save(buffer, "MPO", save_all=True, append_images=[FRAMES[1].resize((5, 6))], quality=95)
    plain = io.BytesIO()
    FRAMES[0].save(plain, "JPEG", quality=95)
    expected = np.asarray(Image.open(plain))
    for name in ("a.mpo", "a.jpg"):
        (tmp_path / name).write_bytes(buffer.getvalue())
        picture = open_picture(tmp_path / name)
        assert np.array_equal(picture.pixels, expected)
        assert picture.notes == ("it holds 2 pictures: the main one is taken",)


def test_a_broken_directory_of_pictures(tmp_path: Path) -> None:
    FRAMES[0].save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as plain:
        expected = np.asarray(plain)
    for body in (b"MPF\0", b"MPF\0II*\0" + struct.pack("<I", 2**31), b"MPF\0" + b"\xff" * 40):
        with_segments(tmp_path / "a.jpg", (0xE2, body))
        assert np.array_equal(open_picture(tmp_path / "a.jpg").pixels, expected)
