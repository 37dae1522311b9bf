"""Pictures as cameras and programs leave them: EXIF, chunks and segments put together byte by byte."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from pgp_core.images.picture import Picture

#: Types of TIFF's values: bytes, text, 16 bits, 32 bits, fractions, anything.
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
_SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1}
Entries = dict[int, tuple[int, bytes]]


def levels(*shape: int, high: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8 if high == 256 else np.uint16)


def same(picture: Picture) -> Picture:
    """What a perfect model of scale 1 would give."""
    return picture.enlarged(picture.rgb()[0])


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Pillow's own turning, of the pixels' numbers."""
    numbers = Image.fromarray(np.arange(array.shape[0] * array.shape[1], dtype=np.int32).reshape(array.shape[:2]))
    numbers.getexif()[0x0112] = orientation
    turned = np.asarray(ImageOps.exif_transpose(numbers))
    return array.reshape(-1, *array.shape[2:])[turned]


def directory(order: str, at: int, entries: Entries, following: int = 0) -> bytes:
    """A directory of tags that lies at ``at``."""
    table, behind = b"", b""
    place = at + 2 + 12 * len(entries) + 4
    for tag, (kind, data) in sorted(entries.items()):
        value = data.ljust(4, b"\0")
        if len(data) > 4:
            value = struct.pack(f"{order}I", place + len(behind))
            behind += data + b"\0" * (len(data) % 2)
        table += struct.pack(f"{order}HHI", tag, kind, len(data) // _SIZES[kind]) + value
    return struct.pack(f"{order}H", len(entries)) + table + struct.pack(f"{order}I", following) + behind


def camera_exif(
    order: str = "<", orientation: int = 6, size: tuple[int, int] = (60, 40), note: int = 40, thumbnail: bytes = b""
) -> bytes:
    """EXIF with its directory, GPS, a maker's note and a thumbnail, in either byte order."""

    def number(kind: int, value: int) -> tuple[int, bytes]:
        return kind, struct.pack(order + ("H" if kind == SHORT else "I"), value)

    first: Entries = {
        0x010F: (ASCII, b"Camera maker\0"),
        0x0112: number(SHORT, orientation),
        0x011A: (RATIONAL, struct.pack(f"{order}II", 300, 1)),
        0x011B: (RATIONAL, struct.pack(f"{order}II", 300, 1)),
        0x0128: number(SHORT, 2),
        0x013B: (ASCII, "Zoë\0".encode()),
        0x8769: number(LONG, 0),
        0x8825: number(LONG, 0),
    }
    inside: Entries = {
        0x829A: (RATIONAL, struct.pack(f"{order}II", 1, 125)),
        0x9003: (ASCII, b"2024:05:06 07:08:09\0"),
        0x927C: (UNDEFINED, (b"NOTE" * (note // 4 + 1))[:note]),
        0xA002: number(SHORT, size[0]),
        0xA003: number(LONG, size[1]),
    }
    degrees = struct.pack(f"{order}6I", 52, 1, 30, 1, 15, 10)
    gps: Entries = {1: (ASCII, b"N\0"), 2: (RATIONAL, degrees)}
    at = 8 + len(directory(order, 8, first))
    gps_at = at + len(directory(order, at, inside))
    second_at = gps_at + len(directory(order, gps_at, gps))
    first[0x8769], first[0x8825] = number(LONG, at), number(LONG, gps_at)
    second: Entries = {0x0201: number(LONG, 0), 0x0202: number(LONG, len(thumbnail))}
    second[0x0201] = number(LONG, second_at + len(directory(order, second_at, second)))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    block = head + directory(order, 8, first, second_at if thumbnail else 0)
    block += directory(order, at, inside) + directory(order, gps_at, gps)
    return block + (directory(order, second_at, second) + thumbnail if thumbnail else b"")


def packet(orientation: int = 6, filling: str = "") -> bytes:
    """XMP that says a size and an orientation."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/" tiff:Orientation="{orientation}" tiff:ImageWidth="60" '
        f'exif:PixelXDimension="60" dc:source="here{filling}">'
        "<exif:PixelYDimension>40</exif:PixelYDimension></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
    ).encode()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunks(path: Path, *chunks: tuple[bytes, bytes]) -> None:
    """Put chunks into a PNG file, behind its header."""
    data = path.read_bytes()
    path.write_bytes(data[:33] + b"".join(png_chunk(*c) for c in chunks) + data[33:])


def png_chunks(path: Path) -> dict[bytes, bytes]:
    """The chunks of a PNG file; of several of a name the last."""
    data, at, found = path.read_bytes(), 8, {}
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + size]
        at += 12 + size
    return found


def with_segments(path: Path, *bodies: tuple[int, bytes]) -> None:
    """Put segments into a JPEG file, behind JFIF's."""
    data = path.read_bytes()
    end = 4 + int.from_bytes(data[4:6], "big")
    added = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in bodies)
    path.write_bytes(data[:end] + added + data[end:])


def jpeg_segments(path: Path) -> list[tuple[int, bytes]]:
    """Marker and content of each segment in front of the scan."""
    data, at, found = path.read_bytes(), 2, []
    while data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((data[at + 1], data[at + 4 : at + 2 + size]))
        at += 2 + size
    return found


def deep_file(path: Path, bands: int, height: int = 9, width: int = 7) -> np.ndarray:
    """A PNG or TIFF of 16 bits: grey, grey and alpha, RGB or RGBA."""
    import pyvips

    array = levels(height, width, bands, high=65536)
    space = "rgb16" if bands > 2 else "grey16"
    pyvips.Image.new_from_array(array).copy(interpretation=space).write_to_file(str(path), keep="none")
    return array


def camera_file(path: Path, exif: bytes, xmp: bytes = b"", **options: Any) -> np.ndarray:
    """A picture of 60 x 40 with metadata of any kind, in the format that the name says; its pixels as Pillow sees
    them in a file without any."""
    image = Image.fromarray(levels(40, 60, 3))
    if path.suffix == ".png":
        image.save(path)
        itxt = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
        with_chunks(path, (b"eXIf", exif), *([(b"iTXt", itxt)] if xmp else []))
    elif path.suffix == ".jpg":
        image.save(path, quality=95, **options)
        segment = b"http://ns.adobe.com/xap/1.0/\0" + xmp
        with_segments(path, (0xE1, b"Exif\0\0" + exif), *([(0xE1, segment)] if xmp else []))
        plain = path.with_name("plain.jpg")
        image.save(plain, quality=95)
        with Image.open(plain) as decoded:
            return np.asarray(decoded)
    else:
        image.save(path, lossless=True, exif=exif, xmp=xmp, **options)
    return np.asarray(image)
