"""Files are what their bytes say: those that are meant are read, of the others it is said what they are."""

from __future__ import annotations

import ast
import io
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from found_pictures import LONG, SHORT, directory, levels
from PIL import EpsImagePlugin, Image, ImageFile, features

import pgp_core
from pgp_core.errors import PictureError
from pgp_core.images.finding import find_pictures, known_extensions
from pgp_core.images.reading import open_picture

tifffile = pytest.importorskip("tifffile")


def refused(path: Path) -> str:
    with pytest.raises(PictureError) as error:
        open_picture(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


# -- other programs' files --------------------------------------------------------------------------------------


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n0 0 10 10 rectfill\nshowpage\n"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (EPS, "EPS or PostScript"),
        (struct.pack("<4sII", b"\xc5\xd0\xd3\xc6", 30, len(EPS)) + bytes(18) + EPS, "an EPS file"),
        (b"%PDF-1.7\n1 0 obj\n", "a PDF"),
        (b"\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"\xd7\xcd\xc6\x9a" + bytes(60), "Windows metafile"),
        (b"\0\0\0\x20ftypisom" + bytes(60), "a video"),
        (b"PK\3\4" + bytes(60), "ZIP"),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.eps", "a.tif"])
def test_no_other_program_is_started(
    name: str, data: bytes, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    (tmp_path / name).write_bytes(data)
    assert what in refused(tmp_path / name)


def test_formats_that_nobody_means(tmp_path: Path) -> None:
    image = Image.fromarray(levels(8, 8, 3))
    for fmt in ("ICNS", "SPIDER", "MSP", "XBM"):
        buffer = io.BytesIO()
        picture = {"MSP": image.convert("1"), "XBM": image.convert("1"), "SPIDER": image.convert("F")}.get(fmt, image)
        picture.resize((16, 16)).save(buffer, fmt)
        (tmp_path / "a.png").write_bytes(buffer.getvalue())
        refused(tmp_path / "a.png")


@pytest.mark.parametrize("fmt", ["BMP", "GIF", "JPEG2000", "PPM", "TGA", "DDS", "PCX", "SGI", "QOI"])
def test_formats_that_are_read(fmt: str, tmp_path: Path) -> None:
    array = levels(8, 8, 3) // 128 * 255
    ending = {"JPEG2000": ".jp2"}.get(fmt, f".{fmt.lower()}")
    Image.fromarray(array).save(tmp_path / f"a{ending}", fmt)
    picture = open_picture(tmp_path / f"a{ending}")
    assert np.array_equal(picture.pixels, array) and picture.notes == ()
    assert ending in known_extensions() and find_pictures([tmp_path]) == [tmp_path / f"a{ending}"]


def test_photoshop_s_layers_are_one_picture(tmp_path: Path) -> None:
    array = levels(6, 5, 3)
    channels = b"".join(struct.pack(">hI", i, 2 + 30) for i in range(3))
    layer = struct.pack(">4iH", 0, 0, 6, 5, 3) + channels + b"8BIMnorm" + struct.pack(">4BI", 255, 0, 0, 0, 12)
    layer += struct.pack(">II", 0, 0) + b"\1x\0\0"
    both = struct.pack(">h", 2) + 2 * layer + 6 * (b"\0\0" + bytes(30))
    section = struct.pack(">I", len(both)) + both
    data = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 6, 5, 8, 3) + struct.pack(">III", 0, 0, len(section)) + section
    (tmp_path / "a.psd").write_bytes(data + b"\0\0" + array.transpose(2, 0, 1).tobytes())
    picture = open_picture(tmp_path / "a.psd")
    assert np.array_equal(picture.pixels, array) and picture.notes == ()


def test_sixteen_bits_in_other_formats(tmp_path: Path) -> None:
    grey, rgb = levels(4, 5, high=65536), levels(4, 5, 3, high=65536)
    (tmp_path / "a.pgm").write_bytes(b"P5 5 4 65535\n" + grey.astype(">u2").tobytes())
    picture = open_picture(tmp_path / "a.pgm")
    assert picture.pixels.dtype == np.uint16 and np.array_equal(picture.pixels[..., 0], grey) and picture.notes == ()
    (tmp_path / "a.ppm").write_bytes(b"P6\n# said by somebody\n5 4\n65535\n" + rgb.astype(">u2").tobytes())
    picture = open_picture(tmp_path / "a.ppm")
    assert np.abs(picture.pixels - rgb / 257).max() <= 1 and "beyond 8 bits" in picture.notes[0]
    Image.fromarray(grey).save(tmp_path / "a.jp2", irreversible=False)
    picture = open_picture(tmp_path / "a.jp2")
    assert np.array_equal(picture.pixels[..., 0], grey) and picture.notes == ()


def test_names_do_not_matter(tmp_path: Path) -> None:
    array = levels(8, 8, 3)
    for fmt in ("PNG", "TIFF", "BMP"):
        Image.fromarray(array).save(tmp_path / "a.jpg", fmt)
        assert np.array_equal(open_picture(tmp_path / "a.jpg").pixels, array)


def test_every_opening_says_which_formats_it_means() -> None:
    """Where a picture is opened without them, Pillow would try everything that it knows."""
    root = Path(pgp_core.__file__).parent
    for folder in (root, root.parent / "nodes"):
        for path in folder.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)) if "Image.open" in text else ():
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                    assert any(k.arg == "formats" for k in node.keywords), f"{path}:{node.lineno}"


def test_endings_that_are_found_in_folders() -> None:
    known = known_extensions()
    assert {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".avif", ".heic", ".jxl", ".mpo"} <= known
    assert not known & {".eps", ".pdf", ".ps", ".wmf", ".emf", ".ico", ".fits", ".dng", ".nef", ".txt"}


# -- raws ---------------------------------------------------------------------------------------------------------


def _tags(first: dict[int, int], inside: dict[int, int] | None = None) -> bytes:
    """A TIFF with a thumbnail, and a directory beside it."""
    entries = {tag: (SHORT, struct.pack("<H", value)) for tag, value in first.items()}
    strip = 8
    entries |= {0x0111: (LONG, struct.pack("<I", strip)), 0x0117: (LONG, struct.pack("<I", 48))}
    if inside is not None:
        entries[0x014A] = (LONG, b"\0\0\0\0")
    at = 8 + 48
    sub = at + len(directory("<", at, entries))
    if inside is None:
        return b"II*\0" + struct.pack("<I", at) + bytes(48) + directory("<", at, entries)
    entries[0x014A] = (LONG, struct.pack("<I", sub))
    below = {tag: (SHORT, struct.pack("<H", value)) for tag, value in inside.items()}
    return b"II*\0" + struct.pack("<I", at) + bytes(48) + directory("<", at, entries) + directory("<", sub, below)


THUMBNAIL = {0x0100: 4, 0x0101: 4, 0x0102: 8, 0x0103: 1, 0x0106: 2, 0x0115: 3, 0x0116: 4}
RAWS = {
    "a.dng": _tags(THUMBNAIL | {0xC612: 1}),
    "sensor.dng": _tags(THUMBNAIL | {0x00FE: 1}, {0x0100: 4000, 0x0101: 3000, 0x0106: 32803}),
    "linear.tif": _tags(THUMBNAIL, {0x0106: 34892}),
    "a.nef": _tags(THUMBNAIL, {0x0106: 32803}),
    "a.pef": _tags(THUMBNAIL | {0x0106: 32803}),
    "a.arw": _tags(THUMBNAIL),
    "a.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(60),
    "a.orf": b"IIRO\x08\0\0\0" + bytes(60),
    "a.rw2": b"IIU\0\x18\0\0\0" + bytes(60),
    "a.raf": b"FUJIFILMCCD-RAW 0201" + bytes(60),
    "a.cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(60),
    "a.mrw": b"\0MRM" + bytes(60),
    "a.x3f": b"FOVb" + bytes(60),
    "a.crw": b"II\x1a\0\0\0HEAPCCDR" + bytes(60),
}


@pytest.mark.parametrize("name", RAWS)
def test_raws_are_named_and_not_their_thumbnails_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(RAWS[name])
    said = refused(tmp_path / name)
    assert "a camera's raw file" in said and "develop it first" in said
    assert name.endswith(".tif") or name.split(".")[1].upper() in said
    # By another name it is no other file; but for what only its name tells.
    if name != "a.arw":
        (tmp_path / "b.tif").write_bytes(RAWS[name])
        assert "a camera's raw file" in refused(tmp_path / "b.tif")


def test_the_thumbnail_itself_would_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(_tags(THUMBNAIL))
    assert open_picture(tmp_path / "a.tif").pixels.shape == (4, 4, 3)


def test_a_mosaic_of_tifffile_s(tmp_path: Path) -> None:
    pattern = [(0x828D, 3, 2, (2, 2), True), (0x828E, 1, 4, b"\0\1\1\2", True)]
    tifffile.imwrite(tmp_path / "a.tif", levels(8, 8, high=65536), photometric="cfa", extratags=pattern)
    assert "raw file" in refused(tmp_path / "a.tif")


# -- formats that need a package --------------------------------------------------------------------------------------


def _boxed(*brands: bytes) -> bytes:
    return struct.pack(">I4s4sI", 16 + 4 * len(brands[1:]), b"ftyp", brands[0], 0) + b"".join(brands[1:]) + bytes(80)


@pytest.mark.parametrize(
    ("data", "fmt", "package", "module"),
    [
        (_boxed(b"heic", b"mif1", b"heic"), "HEIF", "pillow-heif", "pillow_heif"),
        (_boxed(b"mif1", b"heic"), "HEIF", "pillow-heif", "pillow_heif"),
        (_boxed(b"avif", b"mif1", b"miaf"), "AVIF", "pillow-avif-plugin", "pillow_avif"),
        (_boxed(b"mif1", b"avif"), "AVIF", "pillow-avif-plugin", "pillow_avif"),
        (b"\xff\x0a" + bytes(60), "JXL", "pillow-jxl-plugin", "pillow_jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), "JXL", "pillow-jxl-plugin", "pillow_jxl"),
    ],
)
def test_formats_without_their_package(
    data: bytes, fmt: str, package: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.init()
    monkeypatch.delitem(Image.OPEN, fmt, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.jpg").write_bytes(data)
    said = refused(tmp_path / "a.jpg")
    assert f"pip install {package}" in said
    assert ("pillow>=" in said) == (fmt == "AVIF")


def test_a_package_is_loaded_where_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pillow-heif does it: a function puts it into Pillow."""

    class Plugin(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode = (2, 1), "RGB"
            self.tile = [("raw", (0, 0, 2, 1), 64, "RGB")]

    plugin = ModuleType("pillow_heif")
    plugin.register_heif_opener = lambda: Image.register_open("HEIF", Plugin, lambda head: b"ftyp" in head)  # type: ignore[attr-defined]
    Image.init()
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    (tmp_path / "a.heic").write_bytes(_boxed(b"heic")[:64].ljust(64, b"\0") + bytes((1, 2, 3, 4, 5, 6)))
    try:
        assert open_picture(tmp_path / "a.heic").pixels.tolist() == [[[1, 2, 3], [4, 5, 6]]]
    finally:
        Image.OPEN.pop("HEIF", None)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_turned_once(tmp_path: Path) -> None:
    smooth = np.stack([*np.meshgrid(np.linspace(0, 255, 32), np.linspace(0, 255, 24)), np.full((24, 32), 90)], -1)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "a.avif", quality=95, exif=exif)
    picture = open_picture(tmp_path / "a.avif")
    assert picture.pixels.shape == (32, 24, 3)
    assert np.abs(picture.pixels.astype(int) - np.rot90(smooth, -1)).max() < 24


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_of_ten_bits_is_said(tmp_path: Path) -> None:
    Image.fromarray(levels(16, 16, 3)).save(tmp_path / "a.avif")
    assert open_picture(tmp_path / "a.avif").notes == ()
    # The box alone, behind everything: nothing that can be had here writes the rest.
    with (tmp_path / "a.avif").open("ab") as file:
        file.write(struct.pack(">I4sI4s", 24, b"free", 16, b"pixi") + bytes((0, 0, 0, 0, 3, 10, 10, 10)))
    (note,) = open_picture(tmp_path / "a.avif").notes
    assert "beyond 8 bits" in note


# -- files that are none ----------------------------------------------------------------------------------------------


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "none.png")
    assert "is no file" in refused(tmp_path)
    (tmp_path / "empty.png").write_bytes(b"")
    assert "is empty" in refused(tmp_path / "empty.png")
    with pytest.raises(PictureError, match="there is no file"):
        open_picture(tmp_path / "nul\0.png")
