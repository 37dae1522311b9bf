"""What cannot be shown: cut off, of another kind than its name says, or no file at all."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from . import exif
from .deep import deep_tiff
from .metadata import tiff
from .scene import Odd, scene

_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"
_PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


def make(folder: Path) -> Iterator[Odd]:
    for name, data in {
        "empty.jpg": b"",
        "one byte.png": b"\x89",
        "a text.jpg": b"this is no picture\n",
        "a page.png": b"<!doctype html><title>404</title>",
        "an eps.png": _EPS,
        "a pdf.png": _PDF,
        "heic.jpg": struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + b"\0" * 64,
        "zeros.tif": b"\0" * 5000,
    }.items():
        (folder / name).write_bytes(data)
        yield Odd(name, None)
    yield from _cut_off(folder)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    deep_tiff(folder / "floating point.tif", scene(), sample_format=3, bits=32)
    yield Odd("floating point.tif", None, "convert it to")
    raw = [(0xFE, exif.LONG, 1, b"\1\0\0\0"), (0xC612, exif.BYTE, 4, b"\1\4\0\0"), exif.text(0xC614, "Camera 1")]
    tiff(folder / "a raw file.tif", noise[:8, :8], raw)
    yield Odd("a raw file.tif", None)
    _claims(folder / "bomb.png", 60_000, 60_000)
    yield Odd("bomb.png", None)
    Image.new("L", (9000, 2)).save(folder / "too wide.png")
    yield Odd("too wide.png", None, "18000x4")
    yield from _no_files(folder)


def _cut_off(folder: Path) -> Iterator[Odd]:
    """Half of a file whose pixels are all over it."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    for form, suffix, options in (
        ("JPEG", ".jpg", {"quality": 95}),
        ("PNG", ".png", {}),
        ("WEBP", ".webp", {"lossless": True}),
        ("TIFF", ".tif", {"compression": "tiff_adobe_deflate"}),
        ("BMP", ".bmp", {}),
    ):
        memory = io.BytesIO()
        noise.save(memory, form, **options)
        data = memory.getvalue()
        if form == "TIFF":
            # Its directory is at the end: the strips are what is cut out.
            (at,) = struct.unpack_from("<I", data, 4)
            data = data[:64] + b"\0" * (at - 64) + data[at:]
        else:
            data = data[: len(data) // 2]
        (folder / f"cut off{suffix}").write_bytes(data)
        yield Odd(f"cut off{suffix}", None)


def _claims(path: Path, width: int, height: int) -> None:
    """A PNG that says it is large and is not."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")),
              (b"IEND", b"")]  # fmt: skip
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    )


def _no_files(folder: Path) -> Iterator[Odd]:
    (folder / "leads nowhere.png").symlink_to("gone.png")
    yield Odd("leads nowhere.png", None, "leads nowhere")
    (folder / "circle.png").symlink_to("circle.png")
    yield Odd("circle.png", None, "circle")
    os.mkfifo(folder / "pipe.png")
    yield Odd("pipe.png", None, "pipe")
    if os.geteuid():
        (folder / "locked.png").write_bytes(b"\x89PNG")
        (folder / "locked.png").chmod(0)
        yield Odd("locked.png", None, "ermission")
