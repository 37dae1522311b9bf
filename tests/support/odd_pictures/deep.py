"""Pictures of 16 bits a channel, written byte by byte."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}


def deep_png(path: Path, picture: np.ndarray, exif: bytes = b"") -> None:
    """A PNG of 16 bits: grey, grey and alpha, RGB or RGBA; of levels in [0, 255]."""
    levels = picture if picture.ndim == 3 else picture[..., None]
    height, width, bands = levels.shape
    rows = (levels.astype(">u2") * 257).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _COLOUR[bands], 0, 0, 0))]
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )


def deep_tiff(path: Path, picture: np.ndarray, orientation: int = 1, sample_format: int = 1, bits: int = 16) -> None:
    """A TIFF of 16 bits a channel, or of 32 in floating point; big-endian."""
    levels = picture if picture.ndim == 3 else picture[..., None]
    height, width, bands = levels.shape
    data = (
        (levels / 255).astype(">f4").tobytes() if bits == 32 else (levels.astype(">u2") * 257).astype(">u2").tobytes()
    )
    extra = bands in (2, 4)
    short, long = 3, 4

    def one(tag: int, kind: int, *numbers: int) -> tuple[int, int, list[int]]:
        return tag, kind, list(numbers)

    tags = [
        one(0x100, long, width), one(0x101, long, height), one(0x102, short, *[bits] * bands), one(0x103, short, 1),
        one(0x106, short, 2 if bands > 2 else 1), one(0x111, long, 0), one(0x112, short, orientation),
        one(0x115, short, bands), one(0x116, long, height), one(0x117, long, len(data)),
        *([one(0x152, short, 2)] if extra else []), one(0x153, short, *[sample_format] * bands),
    ]  # fmt: skip
    end = 8 + 2 + 12 * len(tags) + 4
    values = b""
    entries = b""
    for tag, kind, numbers in tags:
        packed = struct.pack(f">{len(numbers)}{'H' if kind == short else 'I'}", *numbers)
        if tag == 0x111:
            packed = b"DATA"
        if len(packed) > 4:
            entries += struct.pack(">HHII", tag, kind, len(numbers), end + len(values))
            values += packed + b"\0" * (len(packed) % 4)
        else:
            entries += struct.pack(">HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    entries = entries.replace(b"DATA", struct.pack(">I", end + len(values)))
    head = b"MM\0*" + struct.pack(">IH", 8, len(tags))
    path.write_bytes(head + entries + b"\0\0\0\0" + values + data)
