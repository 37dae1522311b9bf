"""PNG's chunks: those that Pillow and libvips get to decode, and those that hold metadata."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP = "XML:com.adobe.xmp"
#: What the pixels are made of.
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
#: Bytes of texts, unpacked, that are read of one file.
_MOST = 2**26
#: ImageMagick's way to put other formats' metadata into texts.
_RAW_PROFILE = "Raw profile type "


@dataclass
class Png:
    """A file, taken apart.

    Attributes:
        pixels: the file with nothing but its pixels in it.
        chunks: the other chunks by name, the first of each.
        text: by keyword.
        profiles: bytes from ImageMagick's raw profiles, by their names.
        frames: of an animation.
        notes: what is left out.
    """

    pixels: bytes = b""
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, bytes] = field(default_factory=dict)
    frames: int = 1
    notes: list[str] = field(default_factory=list)


def read(data: bytes) -> Png:
    """Take a file apart. Never raises: a file that is cut off is one whose pixels cannot be decoded then."""
    png, kept, room = Png(), [SIGNATURE], _MOST
    for name, body, whole in chunks(data):
        if name in _PIXELS:
            kept.append(whole)
        elif name == b"acTL" and len(body) == 8:
            png.frames = max(1, struct.unpack(">I", body[:4])[0])
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            found = _text(name, body, room)
            if found is None:
                keyword = body.split(b"\0")[0][:30].decode("latin-1")
                png.notes.append(f"the text {keyword!a} (damaged, or too large)")
                continue
            room -= len(found[1])
            _keep(png, *found)
        else:
            png.chunks.setdefault(name, body)
    png.pixels = b"".join(kept)
    return png


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, content and all bytes of each chunk, up to the last that is whole, or the rest as IDAT's."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        whole = data[at : at + 12 + size]
        yield name, whole[8 : 8 + size], whole
        if name == b"IEND":
            break
        at += 12 + size


def _text(name: bytes, body: bytes, room: int) -> tuple[str, str] | None:
    keyword, found, rest = body.partition(b"\0")
    if not found:
        return None
    try:
        packed, encoding = name == b"zTXt", "latin-1"
        if packed:
            rest = rest[1:]
        elif name == b"iTXt":
            packed, encoding = rest[:1] == b"\1", "utf-8"
            rest = rest[2:].split(b"\0", 2)[2]
        if packed:
            unpacker = zlib.decompressobj()
            rest = unpacker.decompress(rest, room + 1)
        if len(rest) > room:
            return None
        return keyword.decode("latin-1"), rest.decode(encoding)
    except (zlib.error, UnicodeError, IndexError):
        return None


def _keep(png: Png, keyword: str, value: str) -> None:
    if not keyword.startswith(_RAW_PROFILE):
        png.text[keyword] = value
        return
    # A line break, the profile's name, its length, and then hexadecimal digits.
    try:
        png.profiles[keyword.removeprefix(_RAW_PROFILE).lower()] = bytes.fromhex("".join(value.split()[2:]))
    except ValueError:
        png.notes.append(f"the text {keyword[:30]!a} (damaged)")


def dressed(encoded: bytes, added: list[bytes]) -> Iterator[bytes]:
    """The pieces of a file with chunks put in behind its header."""
    yield SIGNATURE
    for name, _, whole in chunks(encoded):
        if name in _PIXELS:
            yield whole
        if name == b"IHDR":
            yield from added


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of these bytes."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def text_chunk(keyword: str, value: str) -> bytes:
    """A chunk of this text, uncompressed.

    Raises:
        ValueError: if PNG knows no such keyword, or the text is not valid Unicode.
    """
    key = keyword.encode("latin-1")
    if not 1 <= len(key) <= 79 or keyword != keyword.strip() or not re.fullmatch(r"[\x20-\x7e\xa1-\xff]+", keyword):
        raise ValueError("keywords are 1 to 79 printable characters")
    if value.isascii() and "\0" not in value and keyword != XMP:
        return chunk(b"tEXt", key + b"\0" + value.encode())
    return chunk(b"iTXt", key + b"\0\0\0\0\0" + value.encode())


def raw_profile_chunk(name: str, data: bytes) -> bytes:
    """What PNG has no chunk for, as ImageMagick writes it and exiftool reads it."""
    digits = data.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    text = f"\n{name}\n{len(data):8}\n{lines}\n".encode()
    return chunk(b"zTXt", (_RAW_PROFILE + name).encode() + b"\0\0" + zlib.compress(text))


def resolution(body: bytes) -> tuple[float, float] | None:
    """Pixels per inch by a pHYs chunk."""
    if len(body) != 9 or body[8] != 1:
        return None
    along = struct.unpack(">II", body[:8])
    return along[0] * 0.0254, along[1] * 0.0254


def resolution_chunk(dpi: tuple[float, float]) -> bytes:
    """pHYs."""
    return chunk(b"pHYs", struct.pack(">IIB", *(round(d / 0.0254) for d in dpi), 1))
