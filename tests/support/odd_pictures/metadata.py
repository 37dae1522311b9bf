"""Good pictures whose metadata are good, damaged, or too much."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from . import exif
from .deep import deep_png, deep_tiff
from .scene import STORED, Odd, scene


def make(folder: Path) -> Iterator[Odd]:
    picture = scene()
    for n in range(1, 9):
        Image.fromarray(np.ascontiguousarray(STORED[n](picture))).save(
            folder / f"turned {n}.jpg", quality=95, subsampling=0, exif=exif.camera(n)
        )
        yield Odd(f"turned {n}.jpg", picture)
    yield from _turned(folder, picture)
    for what, block in exif.damaged().items():
        jpeg(folder / f"exif {what}.jpg", picture, block)
        yield Odd(f"exif {what}.jpg", picture)
    for what in ("truncated", "points nowhere", "odd types"):
        # Pillow would look at it when it saves: the chunk is put in afterwards.
        png(folder / f"exif {what}.png", picture, [(b"eXIf", exif.damaged()[what].removeprefix(b"Exif\0\0"))])
        yield Odd(f"exif {what}.png", picture)
    yield from _large(folder, picture)
    yield from _resolutions(folder, picture)
    yield from _profiles(folder, picture)


def jpeg(path: Path, picture: np.ndarray, block: bytes = b"", marker: int = 0xE1) -> None:
    """A JPEG with a segment put in front of all others, as it is."""
    memory = io.BytesIO()
    Image.fromarray(picture).save(memory, "JPEG", quality=95, subsampling=0)
    plain = memory.getvalue()
    segment = struct.pack(">BBH", 0xFF, marker, len(block) + 2) + block
    path.write_bytes(plain[:2] + segment + plain[2:])


def png(path: Path, picture: np.ndarray, chunks: list[tuple[bytes, bytes]]) -> None:
    """A PNG with chunks put behind its header, as they are."""
    memory = io.BytesIO()
    Image.fromarray(picture).save(memory, "PNG")
    plain = memory.getvalue()
    more = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    path.write_bytes(plain[:33] + more + plain[33:])


def _turned(folder: Path, picture: np.ndarray) -> Iterator[Odd]:
    """Every reader's files."""
    turned = np.ascontiguousarray(STORED[6](picture))
    other = np.ascontiguousarray(STORED[8](picture))
    Image.fromarray(turned).save(folder / "turned.tif", exif=exif.block([exif.short(0x112, 6)]))
    Image.fromarray(other).save(folder / "turned.webp", lossless=True, exif=exif.block([exif.short(0x112, 8)]))
    png(folder / "turned.png", turned, [(b"eXIf", exif.camera(6).removeprefix(b"Exif\0\0"))])
    deep_png(folder / "turned deep.png", turned, exif.block([exif.short(0x112, 6)]))
    deep_tiff(folder / "turned deep.tif", other, 8)
    yield Odd("turned.tif", picture, result="turned.tif")
    yield Odd("turned.webp", picture, result="turned.webp")
    yield Odd("turned.png", picture)
    yield Odd("turned deep.png", picture, bits=16)
    yield Odd("turned deep.tif", picture, result="turned deep.tif", bits=16)


def _large(folder: Path, picture: np.ndarray) -> Iterator[Odd]:
    image = Image.fromarray(picture)
    much = exif.block([exif.text(0x10E, "words " * 15_000)])
    image.save(folder / "much exif.png", exif=much)
    image.save(folder / "much exif.webp", exif=much, lossless=True)
    yield Odd("much exif.png", picture)
    yield Odd("much exif.webp", picture, result="much exif.webp")
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + b"<!-- words -->" * 7000 + b"</x:xmpmeta>"
    image.save(folder / "much xmp.webp", xmp=xmp, lossless=True)
    yield Odd("much xmp.webp", picture)
    jpeg(folder / "broken xmp.jpg", picture, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta \xff\xfe\x00 <<")
    yield Odd("broken xmp.jpg", picture)
    texts = PngInfo()
    texts.add_text("prompt", '{"a": 1}' * 20_000)
    texts.add_itxt("Title", "Ünïcode \u202e \x01")
    image.save(folder / "texts.png", pnginfo=texts)
    yield Odd("texts.png", picture)
    png(folder / "text bomb.png", picture, [(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 80_000_000, 9))])
    yield Odd("text bomb.png", picture)


def _resolutions(folder: Path, picture: np.ndarray) -> Iterator[Odd]:
    for what, x, y in (("nan", (0, 0), (0, 0)), ("infinite", (1, 0), (1, 0)), ("huge", (0xFFFFFFFF, 1), (1, 0xFFFF))):
        tags = [exif.rationals(0x11A, x), exif.rationals(0x11B, y), exif.short(0x128, 2)]
        tiff(folder / f"resolution {what}.tif", picture, tags)
        yield Odd(f"resolution {what}.tif", picture)
    jpeg(folder / "resolution zero.jpg", picture, b"JFIF\0\1\2\1\0\0\0\0\0\0", 0xE0)
    yield Odd("resolution zero.jpg", picture)
    png(folder / "resolution huge.png", picture, [(b"pHYs", struct.pack(">IIB", 2**32 - 1, 2**32 - 1, 1))])
    yield Odd("resolution huge.png", picture)


def tiff(path: Path, picture: np.ndarray, more: list[exif.Tag]) -> None:
    """A TIFF of 8 bits in one strip, with any tags."""
    height, width, bands = picture.shape
    data = picture.tobytes()
    tags = [
        (0x100, exif.LONG, 1, struct.pack("<I", width)),
        (0x101, exif.LONG, 1, struct.pack("<I", height)),
        (0x102, exif.SHORT, bands, struct.pack(f"<{bands}H", *[8] * bands)),
        exif.short(0x103, 1),
        exif.short(0x106, 2),
        exif.short(0x115, bands),
        (0x116, exif.LONG, 1, struct.pack("<I", height)),
        (0x117, exif.LONG, 1, struct.pack("<I", len(data))),
        *more,
    ]
    end = 8 + len(exif.directory([*tags, (0x111, exif.LONG, 1, b"\0\0\0\0")], 8))
    tags.append((0x111, exif.LONG, 1, struct.pack("<I", end)))
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + exif.directory(tags, 8) + data)


def _profiles(folder: Path, picture: np.ndarray) -> Iterator[Odd]:
    image = Image.fromarray(picture)
    for what, profile in (("broken", b"no profile at all"), ("short", b"\0" * 130)):
        image.save(folder / f"profile {what}.png", icc_profile=profile)
        yield Odd(f"profile {what}.png", picture)
    png(folder / "profile damaged.png", picture, [(b"iCCP", b"name\0\0not deflated")])
    yield Odd("profile damaged.png", picture)
