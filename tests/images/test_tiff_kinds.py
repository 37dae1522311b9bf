"""TIFF in its many kinds, as tifffile writes them: each is read as what it means, or refused with a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from found_pictures import levels
from PIL import Image, ImageCms

from pgp_core.errors import PictureError
from pgp_core.images.picture import Picture
from pgp_core.images.reading import open_picture

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("pyvips")

RGB = {"photometric": "rgb"}
GREY = {"photometric": "minisblack", "planarconfig": "contig"}
BITS = pytest.mark.parametrize("bits", [8, 16])


def read(path: Path, array: np.ndarray, **options: Any) -> Picture:
    tifffile.imwrite(path, np.ascontiguousarray(array), **options)
    return open_picture(path)


@BITS
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"compression": "zlib", "predictor": True},
        {"byteorder": ">", "compression": "zlib", "predictor": True},
    ],
    ids=str,
)
def test_ways_to_store_it(how: dict[str, Any], bits: int, tmp_path: Path) -> None:
    rgb = levels(20, 30, 3, high=2**bits)
    picture = read(tmp_path / "a.tif", rgb, **RGB, **how)
    assert np.array_equal(picture.pixels, rgb) and picture.alpha is None and picture.notes == ()
    grey = levels(20, 30, high=2**bits)
    picture = read(tmp_path / "b.tif", grey, photometric="minisblack", **how)
    assert np.array_equal(picture.pixels[..., 0], grey)


@BITS
@pytest.mark.parametrize("alpha", [False, True])
def test_planes_one_after_the_other(alpha: bool, bits: int, tmp_path: Path) -> None:
    planes = levels(3 + alpha, 20, 30, high=2**bits)
    extra = {"extrasamples": ["unassalpha"]} if alpha else {}
    picture = read(tmp_path / "a.tif", planes, **RGB, planarconfig="separate", **extra)
    assert np.array_equal(picture.pixels, planes[:3].transpose(1, 2, 0))
    assert (picture.alpha is not None) == alpha and (not alpha or np.array_equal(picture.alpha, planes[3]))


@BITS
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
def test_what_a_further_channel_is(kind: str, colours: int, bits: int, tmp_path: Path) -> None:
    white = 2**bits - 1
    array = levels(20, 30, colours + 1, high=2**bits)
    if kind == "assocalpha":
        array[..., :-1] = np.rint(array[..., :-1] * (array[..., -1:] / white))
    colour, alpha = array[..., :-1].astype(float), array[..., -1:].astype(float)
    picture = read(tmp_path / "a.tif", array, **(RGB if colours == 3 else GREY), extrasamples=[kind])
    if kind == "unspecified":
        assert picture.alpha is None and picture.notes == ("left out: a channel that is not said to be alpha",)
    else:
        assert np.array_equal(picture.alpha, array[..., -1]) and picture.notes == ()
    if kind == "assocalpha":
        # Premultiplied: divided again, which libraries round up or down.
        expected = np.where(alpha > 0, np.minimum(colour * white / np.maximum(alpha, 1), white), 0)
        assert np.abs(picture.pixels - expected).max() <= 1
    else:
        assert np.array_equal(picture.pixels, array[..., :-1])


@BITS
def test_more_channels_than_that(bits: int, tmp_path: Path) -> None:
    array = levels(20, 30, 5, high=2**bits)
    picture = read(tmp_path / "a.tif", array, **RGB, extrasamples=["unassalpha", "unspecified"])
    assert np.array_equal(picture.pixels, array[..., :3]) and np.array_equal(picture.alpha, array[..., 3])
    assert picture.notes == ("left out: a channel that is not said to be alpha",)


@BITS
def test_white_is_zero(bits: int, tmp_path: Path) -> None:
    grey = levels(20, 30, high=2**bits)
    picture = read(tmp_path / "a.tif", grey, photometric="miniswhite")
    assert np.array_equal(picture.pixels[..., 0], 2**bits - 1 - grey)


@BITS
@pytest.mark.parametrize("alpha", [False, True])
def test_cmyk(alpha: bool, bits: int, tmp_path: Path) -> None:
    """Without ink it is white, with black ink it is dark; of alpha nothing is converted."""
    white = 2**bits - 1
    array = np.zeros((16, 16, 4 + alpha), np.uint8 if bits == 8 else np.uint16)
    array[8:, :, 3] = white
    array[:, 8:, 1] = white
    extra = {"extrasamples": ["unassalpha"]} if alpha else {}
    if alpha:
        array[..., 4] = levels(16, 16, high=2**bits)
    picture = read(tmp_path / "a.tif", array, photometric="separated", **extra)
    share = picture.pixels / white
    assert picture.pixels.dtype == array.dtype and share[:8, :8].min() > 0.95 and share[8:, :8].max() < 0.25
    if not alpha:
        # Without a profile there is no better than this: what the inks leave.
        left = 1 - array / white
        assert np.abs(share - left[..., :3] * left[..., 3:]).max() * 255 <= 1
    # Magenta: red more than green.
    assert (share[:8, 8:, 0] - share[:8, 8:, 1]).min() > 0.5
    if alpha:
        assert np.array_equal(picture.alpha, array[..., 4])


def test_palettes_and_few_bits(tmp_path: Path) -> None:
    indices = levels(20, 30)
    palette = np.random.default_rng(1).integers(0, 65536, (3, 256)).astype(np.uint16)
    picture = read(tmp_path / "a.tif", indices, photometric="palette", colormap=palette)
    assert np.array_equal(picture.pixels, (palette >> 8).astype(np.uint8)[:, indices].transpose(1, 2, 0))
    bits = indices > 127
    picture = read(tmp_path / "b.tif", bits, photometric="minisblack")
    assert np.array_equal(picture.pixels[..., 0], bits * np.uint8(255))


def test_ycbcr_of_jpeg(tmp_path: Path) -> None:
    array = np.full((32, 32, 3), (200, 90, 40), np.uint8)
    Image.fromarray(array).convert("YCbCr").save(tmp_path / "a.tif", compression="jpeg", quality=95)
    assert np.abs(open_picture(tmp_path / "a.tif").pixels.astype(int) - array).max() <= 3


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        (np.float32, "is in floating point, 32 bits a channel"),
        (np.float16, "is in floating point, 16 bits a channel"),
        (np.float64, "is in floating point, 64 bits a channel"),
        (np.uint32, "has 32 bits a channel"),
        (np.int8, "has 8 bits with a sign a channel"),
        (np.int16, "has 16 bits with a sign a channel"),
    ],
)
def test_numbers_that_are_no_levels(dtype: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=f"{said}: convert it to 8 or 16 bits"):
        read(tmp_path / "a.tif", np.zeros((4, 4), dtype))


def test_twelve_bits(tmp_path: Path) -> None:
    """Neither library scales them."""
    array = np.zeros((4, 4), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array)
    data = (
        (tmp_path / "a.tif").read_bytes().replace(b"\x02\x01\x03\0\x01\0\0\0\x10\0", b"\x02\x01\x03\0\x01\0\0\0\x0c\0")
    )
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(PictureError, match="has 12 bits a channel"):
        open_picture(tmp_path / "a.tif")


def test_a_profile_of_cmyk_is_used_and_not_kept(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    array = levels(8, 8, 4)
    tag = [(34675, 7, len(lab), lab, True)]
    picture = read(tmp_path / "a.tif", array, photometric="separated", extratags=tag)
    # It is no profile of CMYK: the plain conversion is what is left.
    assert np.array_equal(picture.pixels, np.asarray(Image.fromarray(array, "CMYK").convert("RGB")))
    assert picture.metadata.icc is None


def test_a_file_that_takes_another_s_name(tmp_path: Path) -> None:
    """libvips would remember the first."""
    for seed in (1, 2):
        array = levels(8, 8, 3, high=65536, seed=seed)
        assert np.array_equal(read(tmp_path / "a.tif", array, **RGB).pixels, array)
