"""Every reader turns every orientation once, and no result says that it is still to be turned."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from found_pictures import camera_exif, camera_file, deep_file, levels, packet, same, upright, with_chunks
from PIL import Image

from pgp_core.images.reading import open_picture
from pgp_core.images.writing import FORMATS, save_picture

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("pyvips")


def _pillow(path: Path, orientation: int, bands: int) -> np.ndarray:
    """8 bits."""
    array = levels(5, 8, bands)
    image = Image.fromarray(array[..., 0] if bands == 1 else array)
    if path.suffix == ".tif":
        image.save(path, tiffinfo={0x0112: orientation}, compression="tiff_lzw" if bands == 3 else None)
        return array
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, lossless=True, exact=True, quality=95)
    if path.suffix == ".jpg":
        image.save(path.with_name("plain.jpg"), quality=95)
        with Image.open(path.with_name("plain.jpg")) as plain:
            return np.asarray(plain).reshape(5, 8, bands)
    return array


def _deep_png(path: Path, orientation: int, bands: int) -> np.ndarray:
    array = deep_file(path, bands, 5, 8)
    with_chunks(path, (b"eXIf", camera_exif(">", orientation)))
    return array


def _by_tifffile(path: Path, orientation: int, bands: int) -> np.ndarray:
    array = levels(5, 8, bands, high=65536)
    extra = ["unassalpha"] if bands in (2, 4) else None
    tifffile.imwrite(
        path,
        array if bands > 1 else array[..., 0],
        photometric="rgb" if bands > 2 else "minisblack",
        planarconfig="contig" if bands > 1 else None,
        extrasamples=extra,
        extratags=[(0x0112, 3, 1, orientation, True)],
    )
    return array


MAKERS = {
    "png": (_pillow, ".png", (1, 2, 3, 4)),
    "jpeg": (_pillow, ".jpg", (1, 3)),
    "webp": (_pillow, ".webp", (3, 4)),
    "tiff": (_pillow, ".tif", (1, 3, 4)),
    "png of 16 bits": (_deep_png, ".png", (1, 2, 3, 4)),
    "tiff of 16 bits": (_by_tifffile, ".tif", (1, 2, 3, 4)),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_reader_turns_every_orientation_once(kind: str, orientation: int, tmp_path: Path) -> None:
    make, suffix, several = MAKERS[kind]
    for bands in several:
        path = tmp_path / f"{bands}{suffix}"
        array = make(path, orientation, bands)
        picture = open_picture(path)
        expected = upright(array, orientation)
        colours = 3 if bands > 2 else 1
        assert np.array_equal(picture.pixels, expected[..., :colours]), bands
        if bands in (2, 4):
            assert np.array_equal(picture.alpha, expected[..., -1])
    # What is written lies as it is read, in this format and the others.
    save_picture(same(picture), tmp_path / f"result{suffix}")
    again = open_picture(tmp_path / f"result{suffix}")
    assert again.pixels.shape == picture.pixels.shape
    with Image.open(tmp_path / f"result{suffix}") as result:
        assert result.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_no_result_says_that_it_is_to_be_turned(suffix: str, order: str, tmp_path: Path) -> None:
    array = camera_file(tmp_path / f"a{suffix}", camera_exif(order, 8), packet(8))
    picture = open_picture(tmp_path / f"a{suffix}")
    assert np.array_equal(picture.pixels, upright(array, 8))
    for other in FORMATS.values():
        target = tmp_path / f"b{other}"
        save_picture(picture, target)
        data = target.read_bytes()
        assert b'tiff:Orientation="1"' in data and b'tiff:Orientation="8"' not in data
        with Image.open(target) as result:
            assert result.getexif().get(0x0112, 1) == 1
            assert result.size == (40, 60)
        if other == ".tif":
            with tifffile.TiffFile(target) as file:
                assert 274 not in file.pages[0].tags or file.pages[0].tags[274].value == 1


@pytest.mark.parametrize("deep", [False, True])
def test_xmp_says_it_where_exif_does_not(deep: bool, tmp_path: Path) -> None:
    """As Pillow has it."""
    path = tmp_path / "a.png"
    array = deep_file(path, 3) if deep else levels(9, 7, 3)
    if not deep:
        Image.fromarray(array).save(path)
    with_chunks(path, (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet(6)))
    assert np.array_equal(open_picture(path).pixels, upright(array, 6))
    with_chunks(path, (b"eXIf", camera_exif(orientation=3)))
    assert np.array_equal(open_picture(path).pixels, upright(array, 3)), "EXIF goes before XMP"


def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path: Path) -> None:
    for orientation in (0, 9, 65535):
        array = camera_file(tmp_path / "a.png", camera_exif(orientation=orientation))
        assert np.array_equal(open_picture(tmp_path / "a.png").pixels, array)
    block = camera_exif(orientation=6)
    # As a LONG: some programs write it so.
    at = block.index(struct.pack("<HHI", 0x0112, 3, 1))
    block = block[:at] + struct.pack("<HHII", 0x0112, 4, 1, 6) + block[at + 12 :]
    array = camera_file(tmp_path / "a.png", block)
    assert np.array_equal(open_picture(tmp_path / "a.png").pixels, upright(array, 6))
