"""What cameras and programs say beside the pixels comes through, and is true of the result."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from found_pictures import (
    ASCII,
    camera_exif,
    camera_file,
    deep_file,
    directory,
    jpeg_segments,
    levels,
    packet,
    png_chunk,
    png_chunks,
    with_segments,
)
from PIL import ExifTags, Image, ImageCms

from pgp_core.images.picture import Metadata, Picture
from pgp_core.images.reading import open_picture
from pgp_core.images.writing import FORMATS, save_picture

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("pyvips")

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
THUMBNAIL = b"\xff\xd8 a small picture \xff\xd9"
#: Photoshop's resources: a resolution, which is not kept, and IPTC with a keyword.
IPTC = b"\x1c\x02\x19\x00\x04tree"
RESOURCES = b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(16) + b"8BIM\x04\x04\x03abc\0\0\0\x09" + IPTC + b"\0"


def twice(path: Path, target: Path) -> list[str]:
    """Enlarge to 80 x 120 what was 60 x 40 and lay on its side."""
    picture = open_picture(path)
    assert picture.notes == () and picture.pixels.shape[:2] == (60, 40)
    return save_picture(picture.enlarged(torch.zeros(3, 120, 80)), target)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("target", sorted(FORMATS.values()))
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp"])
def test_a_camera_s_exif_in_every_format(source: str, target: str, order: str, tmp_path: Path) -> None:
    camera_file(tmp_path / f"a{source}", camera_exif(order, thumbnail=THUMBNAIL), packet())
    notes = twice(tmp_path / f"a{source}", tmp_path / f"b{target}")
    assert len(notes) == (target == ".tif") and all("maker's note" in note for note in notes)
    data = (tmp_path / f"b{target}").read_bytes()
    assert b"a small picture" not in data, "no thumbnail of what the picture was"
    assert (b"NOTENOTE" in data) == (target != ".tif")
    with Image.open(tmp_path / f"b{target}") as result:
        exif = result.getexif()
        inside, gps = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        assert exif[0x010F] == "Camera maker" and exif.get(0x0112, 1) == 1
        assert inside[0x9003] == "2024:05:06 07:08:09" and inside[0x829A] == 1 / 125
        assert (inside[0xA002], inside[0xA003]) == (80, 120)
        assert gps[1] == "N" and gps[2] == (52, 30, 1.5)
        assert target == ".tif" or not exif.get_ifd(ExifTags.IFD.IFD1)
        assert result.info.get("dpi", (300, 300)) == pytest.approx((300, 300), abs=0.1)
    for said in (b'tiff:Orientation="1"', b'tiff:ImageWidth="80"', b'exif:PixelXDimension="80"'):
        assert said in data
    assert b"<exif:PixelYDimension>120</exif:PixelYDimension>" in data


@pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed")
@pytest.mark.parametrize("target", sorted(FORMATS.values()))
def test_exiftool_reads_it_so_too(target: str, tmp_path: Path) -> None:
    camera_file(tmp_path / "a.jpg", camera_exif(">", thumbnail=THUMBNAIL), packet(), icc_profile=SRGB)
    with_segments(tmp_path / "a.jpg", (0xED, b"Photoshop 3.0\0" + RESOURCES))
    twice(tmp_path / "a.jpg", tmp_path / f"b{target}")
    run = subprocess.run(
        ["exiftool", "-json", "-n", "-G1", str(tmp_path / f"b{target}")], capture_output=True, check=True, text=True
    )
    (said,) = json.loads(run.stdout)
    assert said["IFD0:Make"] == "Camera maker" and said["ExifIFD:DateTimeOriginal"] == "2024:05:06 07:08:09"
    assert said["ExifIFD:ExifImageWidth"] == said["XMP-exif:ExifImageWidth"] == 80
    assert said["ExifIFD:ExifImageHeight"] == said["XMP-exif:ExifImageHeight"] == 120
    assert said["Composite:GPSLatitude"] == pytest.approx(52 + 30 / 60 + 1.5 / 3600)
    assert said.get("IFD0:Orientation", 1) == said["XMP-tiff:Orientation"] == 1
    assert said["IFD0:Artist"] == "Zoë" and "ICC_Profile:ProfileDescription" in said
    assert not any(name.startswith("IFD1:") for name in said)
    assert ("IPTC:Keywords" in said) == (target != ".webp")
    assert not said.get("ExifTool:Error"), said


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("byteorder", "<>")
def test_what_tiff_says_of_a_picture(byteorder: str, bits: int, tmp_path: Path) -> None:
    tags = {270: "A red house", 271: "Maker", 272: "Model", 305: "Scanner 1.0", 306: "2024:05:06 07:08:09"}
    tags |= {315: "Somebody", 33432: "(c) Somebody"}
    extra: list[Any] = [(code, 2, 0, text, True) for code, text in tags.items()]
    extra += [(700, 1, len(packet(1)), packet(1), True), (34675, 7, len(SRGB), SRGB, True)]
    extra += [(33723, 7, len(IPTC), IPTC, True)]
    tifffile.imwrite(
        tmp_path / "a.tif",
        levels(40, 60, 3, high=2**bits),
        photometric="rgb",
        metadata=None,
        software=False,
        byteorder=byteorder,
        resolution=(240, 240),
        resolutionunit=2,
        extratags=extra,
    )
    picture = open_picture(tmp_path / "a.tif")
    assert picture.notes == ()
    large = picture.enlarged(torch.rand(3, 80, 120))
    for suffix in FORMATS.values():
        eight = {".jpg": "jpeg", ".webp": "webp"}.get(suffix)
        lost = [f"16 bits a channel ({eight} holds 8)"] if bits == 16 and eight else []
        lost += ["IPTC (WebP has no place for it)"] if suffix == ".webp" else []
        assert save_picture(large, tmp_path / f"b{suffix}") == [f"left out: {'; '.join(lost)}"] * bool(lost)
        with Image.open(tmp_path / f"b{suffix}") as result:
            said = result.getexif()
            assert {code: said[code] for code in tags} == tags
            assert 273 not in said or suffix == ".tif", "where strips lie says nothing in other formats"
            assert result.info["icc_profile"] == SRGB
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        page = file.pages[0]
        assert page.bitspersample == bits
        assert np.array_equal(page.asarray(), large.pixels)
        assert {code: page.tags[code].value for code in tags} == tags
        assert b'tiff:ImageWidth="120"' in bytes(page.tags[700].value)
        assert bytes(page.tags[33723].value) == IPTC
        assert page.tags[282].value[0] / page.tags[282].value[1] == 240 and page.tags[296].value == 2
        assert len(file.pages) == 1
    again = open_picture(tmp_path / "b.tif")
    assert again.metadata.dpi == (240, 240) and again.metadata.iptc == IPTC


def test_iptc_and_comments_of_jpeg(tmp_path: Path) -> None:
    Image.fromarray(levels(16, 16, 3)).save(tmp_path / "a.jpg")
    with_segments(tmp_path / "a.jpg", (0xFE, b"a comment"), (0xED, b"Photoshop 3.0\0" + RESOURCES))
    picture = open_picture(tmp_path / "a.jpg")
    assert save_picture(picture, tmp_path / "b.jpg") == []
    found = dict(jpeg_segments(tmp_path / "b.jpg"))
    assert found[0xFE] == b"a comment" and found[0xED].endswith(IPTC + b"\0") and b"\x03\xed" not in found[0xED]
    with Image.open(tmp_path / "b.jpg") as result:
        assert result.info["comment"] == b"a comment"
    assert save_picture(picture, tmp_path / "b.png") == []
    assert open_picture(tmp_path / "b.png").metadata.iptc == IPTC
    with Image.open(tmp_path / "b.png") as result:
        assert result.text["Comment"] == "a comment"


def test_texts_that_only_png_holds_are_named(tmp_path: Path) -> None:
    picture = open_picture(_with_texts(tmp_path / "a.png", {"workflow": "{}", "Author": "me"}))
    for suffix in (".jpg", ".webp", ".tif"):
        (note,) = save_picture(picture, tmp_path / f"b{suffix}")
        assert "workflow" in note and "Author" in note and "\n" not in note
    assert save_picture(picture, tmp_path / "b.png") == []


def _with_texts(path: Path, texts: dict[str, str]) -> Path:
    Image.fromarray(levels(8, 8, 3)).save(path)
    data = path.read_bytes()
    added = b"".join(png_chunk(b"tEXt", f"{k}\0{v}".encode("latin-1")) for k, v in texts.items())
    path.write_bytes(data[:33] + added + data[33:])
    return path


def test_large_xmp_is_extended_in_jpeg(tmp_path: Path) -> None:
    """Adobe's way: a digest in the first segment, and the text in further ones that name it."""
    Image.fromarray(levels(40, 60, 3)).save(tmp_path / "a.webp", xmp=packet(1, "x" * 150_000), lossless=True)
    picture = open_picture(tmp_path / "a.webp")
    assert save_picture(picture, tmp_path / "b.jpg") == []
    name, pieces, digest = b"http://ns.adobe.com/xmp/extension/\0", {}, b""
    for marker, body in jpeg_segments(tmp_path / "b.jpg"):
        assert len(body) <= 65533
        if marker == 0xE1 and body.startswith(name):
            digest = body[len(name) : len(name) + 32]
            full, offset = struct.unpack_from(">II", body, len(name) + 32)
            pieces[offset] = body[len(name) + 40 :]
    text = b"".join(pieces[i] for i in sorted(pieces))
    assert len(text) == full and b"x" * 150_000 in text and b'tiff:Orientation="1"' in text
    assert digest == hashlib.md5(text).hexdigest().upper().encode()
    again = open_picture(tmp_path / "b.jpg")
    assert again.notes == () and again.metadata.xmp is not None
    assert b"x" * 150_000 in again.metadata.xmp and b"HasExtendedXMP" not in again.metadata.xmp
    assert save_picture(again, tmp_path / "c.png") == []
    assert b"x" * 150_000 in (tmp_path / "c.png").read_bytes()


@pytest.mark.parametrize("note", [70_000, 30])
def test_exif_of_more_than_a_segment(note: int, tmp_path: Path) -> None:
    block = camera_exif("<", 1, note=note)
    if note < 100:
        block += bytes(70_000)
    camera_file(tmp_path / "a.png", block)
    picture = open_picture(tmp_path / "a.png")
    (line,) = save_picture(picture, tmp_path / "b.jpg")
    assert "maker's note (JPEG holds 64 KB)" in line
    with Image.open(tmp_path / "b.jpg") as result:
        assert result.getexif()[0x010F] == "Camera maker" and result.getexif().get_ifd(0x8825)[1] == "N"
    assert save_picture(picture, tmp_path / "b.png") == []
    assert png_chunks(tmp_path / "b.png")[b"eXIf"] == block, "to the byte"


def test_what_is_much_too_large_for_jpeg_is_left_out(tmp_path: Path) -> None:
    block = b"II*\0\x08\0\0\0" + directory("<", 8, {0x010E: (ASCII, b"d" * 70_000 + b"\0")})
    camera_file(tmp_path / "a.png", block)
    (line,) = save_picture(open_picture(tmp_path / "a.png"), tmp_path / "b.jpg")
    assert line == f"left out: EXIF ({len(block)} bytes; JPEG holds 64 KB)"
    with Image.open(tmp_path / "b.jpg") as result:
        assert result.size == (60, 40) and not len(result.getexif())


def test_a_profile_in_several_segments(tmp_path: Path) -> None:
    profile = SRGB + bytes(200_000)
    profile = struct.pack(">I", len(profile)) + profile[4:]
    Image.fromarray(levels(8, 8, 3)).save(tmp_path / "a.png", icc_profile=profile)
    picture = open_picture(tmp_path / "a.png")
    for suffix in FORMATS.values():
        assert save_picture(picture, tmp_path / f"b{suffix}") == []
        with Image.open(tmp_path / f"b{suffix}") as result:
            assert result.info["icc_profile"] == profile
        assert open_picture(tmp_path / f"b{suffix}").metadata.icc == profile


def test_metadata_of_imagemagick_s_kind(tmp_path: Path) -> None:
    """Texts of hexadecimal digits."""
    Image.fromarray(levels(40, 60, 3)).save(tmp_path / "a.png")
    block = b"Exif\0\0" + camera_exif()
    digits = block.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    data = (tmp_path / "a.png").read_bytes()
    text = png_chunk(b"tEXt", b"Raw profile type exif\0" + f"\nexif\n{len(block):8}\n{lines}\n".encode())
    (tmp_path / "a.png").write_bytes(data[:33] + text + data[33:])
    twice(tmp_path / "a.png", tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as result:
        assert result.size == (80, 120) and result.getexif().get_ifd(0x8769)[0xA002] == 80
        assert not any(key.startswith("Raw profile") for key in result.text)


@pytest.mark.parametrize("name", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("suffix", sorted(FORMATS.values()))
def test_exif_with_its_name_in_front(suffix: str, name: bytes, tmp_path: Path) -> None:
    """Both ways to write it down are usual."""
    block = b"II*\0\x08\0\0\0" + directory("<", 8, {0x000B: (ASCII, b"A program\0")})
    assert save_picture(Picture(levels(8, 8, 3), metadata=Metadata(exif=name + block)), tmp_path / f"b{suffix}") == []
    with Image.open(tmp_path / f"b{suffix}") as result:
        assert result.getexif()[0x000B] == "A program"
    assert b"A program" in (open_picture(tmp_path / f"b{suffix}").metadata.exif or b"")


def test_a_result_says_no_resolution_that_nobody_said(tmp_path: Path) -> None:
    for suffix in (".png", ".tif"):
        deep_file(tmp_path / f"a{suffix}", 3)
        picture = open_picture(tmp_path / f"a{suffix}")
        assert picture.metadata.dpi is None
        save_picture(picture, tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as result:
            assert "dpi" not in result.info or result.info["dpi"] == (1, 1)
