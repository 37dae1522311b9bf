"""What a file says of its colours is said of the result too."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from found_pictures import deep_file, levels, png_chunks, same, with_chunks
from PIL import Image, ImageCms

from pgp_core.images.reading import open_picture
from pgp_core.images.writing import save_picture

#: White, red, green, blue of Display P3, as cHRM has them.
P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
SRGB_CHRM = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def chrm(values: tuple[int, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *values)


def gama(value: int) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", value)


def _file(path: Path, *chunks: tuple[bytes, bytes], mode: str = "RGB") -> Path:
    Image.fromarray(levels(8, 8, 3)).convert(mode).save(path)
    with_chunks(path, *chunks)
    return path


def to_srgb(icc: bytes, colour: tuple[int, int, int]) -> np.ndarray:
    """By Little CMS."""
    image = Image.new("RGB", (1, 1), colour)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    result = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), renderingIntent=intent)
    assert result is not None
    return np.asarray(result)[0, 0].astype(int)


def by_arithmetic(values: tuple[int, ...], gamma: float | None, colour: tuple[int, int, int]) -> np.ndarray:
    """From a space of these primaries to sRGB, both of D65."""

    def matrix(where: tuple[int, ...]) -> np.ndarray:
        xy = np.array(where).reshape(4, 2) / 100000
        xyz = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])
        return xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])

    x = np.array(colour) / 255
    light = x**gamma if gamma else np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    light = np.clip(np.linalg.solve(matrix(SRGB_CHRM), matrix(values) @ light), 0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(
    ("chunks", "gamma", "values"),
    [
        ((gama(45455), chrm(P3)), None, P3),
        ((gama(100000), chrm(SRGB_CHRM)), 1.0, SRGB_CHRM),
        ((gama(100000),), 1.0, SRGB_CHRM),
        ((gama(55556), chrm(P3)), 1.8, P3),
        (((b"cICP", bytes((12, 13, 0, 1))), gama(45455)), None, P3),
        (((b"cICP", bytes((1, 8, 0, 1))),), 1.0, SRGB_CHRM),
    ],
)
def test_colours_of_png_s_chunks_become_a_profile(
    chunks: tuple[tuple[bytes, bytes], ...], gamma: float | None, values: tuple[int, ...], tmp_path: Path
) -> None:
    picture = open_picture(_file(tmp_path / "a.png", *chunks))
    assert picture.metadata.icc is not None and picture.notes == ()
    for colour in ((128, 128, 128), (200, 120, 90), (60, 180, 100), (255, 255, 255)):
        # In 8 bits, on both sides.
        assert np.abs(to_srgb(picture.metadata.icc, colour) - by_arithmetic(values, gamma, colour)).max() <= 2, colour
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        save_picture(picture, tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as result:
            assert result.info["icc_profile"] == picture.metadata.icc


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        ((b"sRGB", b"\0"), gama(100000)),
        (gama(45455), chrm(SRGB_CHRM)),
        (gama(45454),),
        (gama(0),),
        ((b"gAMA", b"x"), (b"cHRM", b"y"), (b"cICP", b"z")),
        ((b"cICP", bytes((1, 13, 0, 1))), gama(100000)),
    ],
)
def test_srgb_needs_no_profile(chunks: tuple[tuple[bytes, bytes], ...], tmp_path: Path) -> None:
    picture = open_picture(_file(tmp_path / "a.png", *chunks))
    assert picture.metadata.icc is None and picture.metadata.chunks == {} and picture.notes == ()


def test_a_profile_goes_before_the_other_chunks(tmp_path: Path) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(levels(8, 8, 3)).save(tmp_path / "a.png", icc_profile=icc)
    with_chunks(tmp_path / "a.png", gama(100000), chrm(P3))
    assert open_picture(tmp_path / "a.png").metadata.icc == icc


def test_colours_that_there_are_not(tmp_path: Path) -> None:
    for values in ((0,) * 8, (1,) * 8, (31270, 32900, 64000, 33000, 64000, 33000, 15000, 6000), (2**31,) * 8):
        picture = open_picture(_file(tmp_path / "a.png", gama(100000), chrm(values)))
        assert picture.metadata.icc is None and "colour space" in picture.notes[0]


@pytest.mark.parametrize("deep", [False, True])
def test_hdr_keeps_its_chunk_in_png_and_is_said_elsewhere(deep: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if deep:
        deep_file(path, 3)
        with_chunks(path, (b"cICP", bytes((9, 16, 0, 1))))
    else:
        _file(path, (b"cICP", bytes((9, 16, 0, 1))))
    picture = open_picture(path)
    assert save_picture(same(picture), tmp_path / "b.png") == []
    assert png_chunks(tmp_path / "b.png")[b"cICP"] == bytes((9, 16, 0, 1))
    (note,) = save_picture(same(picture), tmp_path / "b.jpg")
    assert ("16 bits" in note) == deep and "colour space" in note and "different" in note


def test_grey_keeps_its_gamma(tmp_path: Path) -> None:
    picture = open_picture(_file(tmp_path / "a.png", gama(100000), mode="L"))
    assert save_picture(same(picture), tmp_path / "b.png") == []
    assert png_chunks(tmp_path / "b.png")[b"gAMA"] == struct.pack(">I", 100000)


def test_grey_with_a_profile_of_grey(tmp_path: Path) -> None:
    """Its one curve says what grey is; Little CMS builds none by Pillow, so it is put together here."""
    curve, white = (
        b"curv\0\0\0\0" + struct.pack(">IH2x", 1, 0x0233),
        b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
    )
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"grey\0".ljust(5 + 78 + 1, b"\0")
    table, body, at = b"", b"", 128 + 4 + 12 * 3
    for tag, data in ((b"desc", name), (b"wtpt", white), (b"kTRC", curve)):
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">I4xI", at + len(body), 0x02400000) + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28)
    icc = (head + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0") + struct.pack(">I", 3) + table + body
    for suffix in (".png", ".jpg", ".tif"):
        Image.fromarray(levels(8, 8)).save(tmp_path / f"a{suffix}", icc_profile=icc)
        picture = open_picture(tmp_path / f"a{suffix}")
        assert picture.metadata.icc == icc and picture.notes == ()
        save_picture(same(picture), tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as result:
            assert result.mode == "L" and result.info["icc_profile"] == icc
    # There it is RGB, of which the profile says nothing.
    assert save_picture(same(picture), tmp_path / "b.webp") == ["left out: the ICC profile (WebP has no grey)"]
    assert open_picture(tmp_path / "b.webp").notes == ()


def test_transparent_palettes_and_colours(tmp_path: Path) -> None:
    """tRNS: alpha of a palette's colours, or one colour that is transparent, of 8 bits and of 16."""
    indices = Image.fromarray(levels(8, 8, high=256) % 4).convert("P")
    indices.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    alphas = bytes((0, 90, 255, 200))
    indices.save(tmp_path / "p.png", transparency=alphas)
    picture = open_picture(tmp_path / "p.png")
    assert np.array_equal(picture.alpha, np.frombuffer(alphas, np.uint8)[np.asarray(indices)])
    assert np.array_equal(picture.pixels[..., 0], np.asarray(indices) * 30 + 10)
    indices.save(tmp_path / "p.gif", transparency=2)
    picture = open_picture(tmp_path / "p.gif")
    assert np.array_equal(picture.alpha == 0, np.asarray(indices) == 2)
    rgb = levels(8, 8, 3)
    Image.fromarray(rgb).save(tmp_path / "c.png", transparency=tuple(rgb[3, 4].tolist()))
    picture = open_picture(tmp_path / "c.png")
    assert picture.alpha is not None and picture.alpha[3, 4] == 0 and (picture.alpha == 0).sum() == 1
    for bands in (1, 3):
        deep = deep_file(tmp_path / "d.png", bands)
        with_chunks(tmp_path / "d.png", (b"tRNS", deep[3, 4].astype(">u2").tobytes()))
        picture = open_picture(tmp_path / "d.png")
        assert np.array_equal(picture.pixels, deep)
        assert picture.alpha is not None and picture.alpha[3, 4] == 0 and (picture.alpha == 0).sum() == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "I;16"])
def test_every_mode_of_tiff_that_pillow_writes(mode: str, tmp_path: Path) -> None:
    if mode == "I;16":
        image = Image.fromarray(levels(8, 8, high=65536))
    elif mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(Image.fromarray(levels(8, 8, 3)), srgb, lab, outputMode="LAB")  # type: ignore[assignment]
    else:
        image = (
            Image.fromarray(levels(8, 8, 4)).convert("RGB" if mode in ("YCbCr", "CMYK", "P") else "RGBA").convert(mode)
        )
    image.save(tmp_path / "a.tif")
    picture = open_picture(tmp_path / "a.tif")
    assert (picture.pixels.shape[-1] == 1) == (mode in ("1", "L", "LA", "I;16"))
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA", "PA"))
    assert picture.notes == ()
