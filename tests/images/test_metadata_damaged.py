"""Damaged metadata never costs a picture: what cannot be kept is left out, with a line that says which."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from found_pictures import (
    ASCII,
    LONG,
    camera_exif,
    camera_file,
    directory,
    levels,
    packet,
    png_chunk,
    with_chunks,
    with_segments,
)
from PIL import Image, ImageCms

from pgp_core.errors import PictureError
from pgp_core.images import tiff as tiff_tags
from pgp_core.images.picture import Metadata, Picture
from pgp_core.images.reading import open_picture
from pgp_core.images.writing import FORMATS, save_picture

tifffile = pytest.importorskip("tifffile")

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _patched(
    block: bytes, tag: int, kind: int | None = None, count: int | None = None, where: int | None = None
) -> bytes:
    """A block with one entry changed."""
    for at in range(8, len(block) - 12):
        found, old_kind, old_count, old_where = struct.unpack_from("<HHII", block, at)
        if found == tag and 1 <= old_kind <= 10:
            new = [b if a is None else a for a, b in ((kind, old_kind), (count, old_count), (where, old_where))]
            return block[:at] + struct.pack("<HHII", tag, *new) + block[at + 12 :]
    raise AssertionError(hex(tag))


WHOLE = camera_exif(orientation=1)
#: Blocks to whether the maker's name in them can still be read.
EXIF: dict[str, tuple[bytes, bool]] = {
    "nothing": (b"", False),
    "a name only": (b"Exif\0\0", False),
    "no header": (b"hello, this is no TIFF header", False),
    "a header only": (WHOLE[:8], False),
    "points nowhere": (b"II*\0" + struct.pack("<I", 0xFFFFFFF0) + WHOLE[8:], False),
    "cut in the first directory": (WHOLE[: 8 + 2 + 12 * 4], False),
    "cut in the data": (WHOLE[:-30], True),
    "cut behind the first directory": (WHOLE[: 8 + 2 + 12 * 8], False),
    "the Exif directory is nowhere": (_patched(WHOLE, 0x8769, where=0x7FFFFFFF), True),
    "the Exif directory is itself": (_patched(WHOLE, 0x8769, where=8), True),
    "GPS is of another type": (_patched(WHOLE, 0x8825, kind=2), True),
    "GPS is no number": (_patched(WHOLE, 0x8825, kind=12), True),
    "a type that there is not": (_patched(WHOLE, 0x011A, kind=77), True),
    "a count without end": (_patched(WHOLE, 0x013B, count=0xFFFFFFFF), True),
    "orientation of text": (_patched(WHOLE, 0x0112, kind=2, count=2), True),
    "orientation of none": (_patched(WHOLE, 0x0112, count=0), True),
    "the size of text": (_patched(WHOLE, 0xA002, kind=2), True),
    "resolution by zero": (WHOLE.replace(struct.pack("<II", 300, 1), struct.pack("<II", 300, 0)), True),
    "BigTIFF": (b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + bytes(40), False),
    "a thumbnail over everything": (
        b"II*\0\x08\0\0\0"
        + directory("<", 8, {0x010F: (ASCII, b"Camera maker\0")}, 39)
        + directory("<", 39, {0x0201: (LONG, struct.pack("<I", 8)), 0x0202: (LONG, struct.pack("<I", 60))}),
        True,
    ),
}


@pytest.mark.parametrize("name", EXIF)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_damaged_exif(name: str, suffix: str, tmp_path: Path) -> None:
    block, readable = EXIF[name]
    # WebP has no chunk of nothing.
    array = camera_file(tmp_path / f"a{suffix}", block or b" ")
    picture = open_picture(tmp_path / f"a{suffix}")
    assert np.array_equal(picture.pixels, array)
    assert all("EXIF" in note and "\n" not in note for note in picture.notes) and len(picture.notes) <= 1
    for target in FORMATS.values():
        for note in save_picture(picture, tmp_path / f"b{target}"):
            assert note.startswith("left out: ") and "\n" not in note
        with Image.open(tmp_path / f"b{target}") as result:
            result.load()
            exif = result.getexif()
            # No reader stumbles over what is left.
            for pointer in (0x8769, 0x8825):
                exif.get_ifd(pointer)
            assert (exif.get(0x010F) == "Camera maker") == readable
            assert exif.get(0x0112, 1) == 1
        assert open_picture(tmp_path / f"b{target}").notes == ()
    if not readable and block.strip() and (suffix, name) != (".webp", "a name only"):
        assert picture.notes


@pytest.mark.parametrize("deep", [False, True])
def test_damaged_tags_of_tiff(deep: bool, tmp_path: Path) -> None:
    array = levels(6, 5, 3, high=65536 if deep else 256)
    extra = [(271, 2, 0, "Maker", True), (315, 2, 0, "Somebody with a long name", True), (33434, 4, 1, 99999999, True)]
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extratags=extra, metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    at = data.index(struct.pack("<HH", 315, 2))
    data[at + 8 : at + 12] = b"\xff\xff\xff\x7f"
    # tifffile makes no such pointer.
    at = data.index(struct.pack("<HHII", 33434, 4, 1, 99999999))
    data[at : at + 2] = struct.pack("<H", 34665)
    (tmp_path / "a.tif").write_bytes(data)
    picture = open_picture(tmp_path / "a.tif")
    assert np.array_equal(picture.pixels, array)
    (note,) = picture.notes
    assert "0x013B" in note and "Exif directory" in note
    assert save_picture(picture, tmp_path / "b.tif") == []
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages[0].tags[271].value == "Maker" and 34665 not in file.pages[0].tags


@pytest.mark.parametrize(
    "text",
    [
        b"no XML at all",
        b"<x:xmpmeta><unclosed></x:xmpmeta>",
        b"\xff\xfe\x00",
        b"\xc3\x28" * 20,
        b'<!DOCTYPE a [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><a>&b;</a>',
        packet()[:-60],
    ],
)
def test_broken_xmp(text: bytes, tmp_path: Path) -> None:
    array = camera_file(tmp_path / "a.jpg", WHOLE, text)
    picture = open_picture(tmp_path / "a.jpg")
    assert np.array_equal(picture.pixels, array)
    assert picture.notes == ("left out: XMP (damaged)",)
    for suffix in FORMATS.values():
        save_picture(picture, tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as result:
            assert result.getexif()[0x010F] == "Camera maker" and "xmp" not in result.info


def test_a_broken_extension_of_xmp(tmp_path: Path) -> None:
    camera_file(tmp_path / "a.jpg", WHOLE, packet(1))
    name = b"http://ns.adobe.com/xmp/extension/\0"
    with_segments(tmp_path / "a.jpg", (0xE1, name + b"A" * 32 + struct.pack(">II", 5, 0) + b"<rdf:"))
    picture = open_picture(tmp_path / "a.jpg")
    assert picture.notes == ("left out: the extension of XMP (damaged)",) and b"here" in (picture.metadata.xmp or b"")


@pytest.mark.parametrize("icc", [b"no profile", SRGB[:200], b"\xff" * 3000, SRGB[:100] + b"\xff" * 400])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_damaged_profiles(mode: str, icc: bytes, tmp_path: Path) -> None:
    image = Image.fromarray(levels(8, 8, 4), "CMYK" if mode == "CMYK" else "RGBA").convert(mode)
    image.save(tmp_path / "a.jpg", icc_profile=icc, quality=95)
    picture = open_picture(tmp_path / "a.jpg")
    image.save(tmp_path / "plain.jpg", quality=95)
    with Image.open(tmp_path / "plain.jpg") as plain:
        assert np.array_equal(picture.pixels.squeeze(), np.asarray(plain.convert("L" if mode == "L" else "RGB")))
    (note,) = picture.notes
    assert "ICC profile" in note and "damaged" in note and picture.metadata.icc is None


def test_a_profile_chunk_that_is_no_zlib(tmp_path: Path) -> None:
    Image.fromarray(levels(8, 8, 3)).save(tmp_path / "a.png")
    with_chunks(tmp_path / "a.png", (b"iCCP", b"name\0\0garbage"))
    assert open_picture(tmp_path / "a.png").notes == ("left out: the ICC profile (damaged)",)


@pytest.mark.parametrize("pixels_a_metre", [0, 1, 2**31, 2**32 - 1])
def test_odd_resolutions_of_png(pixels_a_metre: int, tmp_path: Path) -> None:
    Image.fromarray(levels(8, 8, 3)).save(tmp_path / "a.png")
    with_chunks(tmp_path / "a.png", (b"pHYs", struct.pack(">IIB", pixels_a_metre, pixels_a_metre, 1)))
    picture = open_picture(tmp_path / "a.png")
    for suffix in FORMATS.values():
        save_picture(picture, tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as result:
            result.load()
    assert (picture.metadata.dpi is None) == (pixels_a_metre != 1)
    assert bool(picture.notes) == (pixels_a_metre > 1)


@pytest.mark.parametrize("dpi", [(float("nan"), 72.0), (float("inf"), 1.0), (0.0, 0.0), (1e30, 1e30), (-72.0, 72.0)])
def test_resolutions_that_are_no_numbers(dpi: tuple[float, float], tmp_path: Path) -> None:
    """Whoever makes a picture may say anything."""
    picture = Picture(levels(8, 8, 3), metadata=Metadata(dpi=dpi))
    for suffix in FORMATS.values():
        notes = save_picture(picture, tmp_path / f"b{suffix}")
        assert any("the resolution" in note for note in notes) == any(dpi)
        with Image.open(tmp_path / f"b{suffix}") as result:
            assert np.asarray(result).shape == (8, 8, 3)


@pytest.mark.parametrize("value", [b"", struct.pack("<II", 0, 0), struct.pack("<II", 2**32 - 1, 1)])
def test_odd_resolutions_of_tiff(value: bytes, tmp_path: Path) -> None:
    array = levels(8, 8, 3)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", resolution=(300, 300), metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    at = data.index(struct.pack("<HH", 282, 5))
    if value:
        (place,) = struct.unpack_from("<I", data, at + 8)
        data[place : place + 8] = value
    else:
        data[at + 8 : at + 12] = b"\xff\xff\xff\xff"
    (tmp_path / "a.tif").write_bytes(data)
    picture = open_picture(tmp_path / "a.tif")
    assert np.array_equal(picture.pixels, array) and picture.metadata.dpi is None


def _texts(path: Path, *chunks: bytes) -> Picture:
    Image.fromarray(levels(8, 8, 3)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])
    return open_picture(path)


def test_texts_of_any_size_and_name(tmp_path: Path) -> None:
    large = b"w" * 3_000_000
    picture = _texts(
        tmp_path / "a.png",
        png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(large)),
        png_chunk(b"tEXt", b"prompt\0" + large),
        png_chunk(b"iTXt", b"Author\0\1\0\0\0" + zlib.compress("Zoë".encode())),
        png_chunk(b"tEXt", b"k" * 90 + b"\0a name of 90"),
        png_chunk(b"tEXt", b"\0no name"),
        png_chunk(b"tEXt", b"no end of the name"),
        png_chunk(b"tEXt", b"line\nbreak\0x"),
        png_chunk(b"zTXt", b"broken\0\0garbage"),
        png_chunk(b"iTXt", b"short\0"),
        png_chunk(b"iTXt", b"not utf-8\0\0\0\0\0\xff\xfe"),
        png_chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(2**27), 9)),
    )
    (read,) = picture.notes
    assert all(f"'{name}'" in read for name in ("broken", "short", "not utf-8", "bomb", "no end of the name"))
    (written,) = save_picture(picture, tmp_path / "b.png")
    assert "kkkk" in written and r"line\nbreak" in written and "\n" not in written
    with Image.open(tmp_path / "b.png") as result:
        texts = result.text
    assert texts["workflow"].encode() == texts["prompt"].encode() == large and texts["Author"] == "Zoë"
    assert set(texts) == {"workflow", "prompt", "Author"}


def test_texts_that_unicode_does_not_have(tmp_path: Path) -> None:
    picture = Picture(
        levels(8, 8, 3), metadata=Metadata(text={"a": "\ud800", "b\0": "x", "ключ": "x", "": "x", "good": "x\0y"})
    )
    (note,) = save_picture(picture, tmp_path / "b.png")
    assert note.count("the text ") == 4
    with Image.open(tmp_path / "b.png") as result:
        assert list(result.text) == ["good"]


def test_metadata_made_by_anybody(tmp_path: Path) -> None:
    """Not only what this package has read: nothing of it costs the picture, and what is good stays."""
    odd: dict[str, Any] = {"exif": b"x", "xmp": b"\xff\xfe\xff", "icc": b"x" * 900_000, "iptc": b"y" * 70_000}
    picture = Picture(levels(8, 8, 3), metadata=Metadata(**odd, comment=b"c" * 70_000, dpi=(72, 72)))
    for suffix in FORMATS.values():
        assert save_picture(picture, tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as result:
            assert result.size == (8, 8)
            result.load()


@pytest.mark.parametrize("error", [RuntimeError("a sub-directory"), struct.error("too large"), MemoryError()])
def test_what_is_computed_is_not_lost_to_metadata(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong while tags are put in: the pixels are there, with what works alone."""
    real = tiff_tags.described

    def fails(path: Path, **pieces: Any) -> None:
        if pieces["block"]:
            raise error
        real(path, **pieces)

    monkeypatch.setattr(tiff_tags, "described", fails)
    camera_file(tmp_path / "a.jpg", WHOLE, packet(1), icc_profile=SRGB)
    picture = open_picture(tmp_path / "a.jpg")
    notes = save_picture(picture, tmp_path / "b.tif")
    assert "EXIF (" in notes[0]
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert np.array_equal(file.pages[0].asarray(), picture.pixels)
        assert bytes(file.pages[0].tags[34675].value) == SRGB and 700 in file.pages[0].tags
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jpg", "b.tif", "plain.jpg"]


def test_webp_that_refuses_metadata_is_written_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Image.Image.save

    def picky(self: Image.Image, *args: Any, **options: Any) -> None:
        if options.get("exif"):
            raise ValueError("cannot assemble")
        real(self, *args, **options)

    camera_file(tmp_path / "a.png", WHOLE)
    picture = open_picture(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "save", picky)
    notes = save_picture(picture, tmp_path / "b.webp")
    assert "cannot assemble" in notes[0]
    with Image.open(tmp_path / "b.webp") as result:
        assert result.size == (60, 40)


def test_damaged_pixels_are_said_in_a_line(tmp_path: Path) -> None:
    """Metadata that is in order does not make a picture."""
    camera_file(tmp_path / "a.jpg", WHOLE)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(PictureError, match=r"a\.jpg") as error:
        open_picture(tmp_path / "a.jpg")
    assert "\n" not in str(error.value)
