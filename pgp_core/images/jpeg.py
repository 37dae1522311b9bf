"""JPEG's segments: those of the pixels, and those that hold metadata."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import xmp
from .beside import RawMetadata

EXIF, XMP, EXTENDED = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
ICC, PHOTOSHOP, MULTIPLE = b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"MPF\0"
_APP0, _APP1, _APP2, _APP13, _APP14, _COMMENT, _START_OF_SCAN = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDA
#: Bytes that a segment holds.
ROOM = 65533
#: Photoshop's number for IPTC.
_IPTC = 0x0404


@dataclass
class Jpeg:
    """A file, taken apart.

    Attributes:
        pixels: the file with nothing but its pixels in it.
        found: what stood beside them, in bytes.
        several: whether further pictures are said to follow.
    """

    pixels: bytes = b""
    found: RawMetadata = field(default_factory=RawMetadata)
    several: bool = False
    _profile: dict[int, bytes] = field(default_factory=dict)
    _extension: dict[int, bytes] = field(default_factory=dict)


def read(data: bytes) -> Jpeg:
    """Take a file apart. Never raises."""
    jpeg, kept, end = Jpeg(), [data[:2]], 2
    for marker, body, whole, following in segments(data):
        end = following
        if not _keep(jpeg, marker, body):
            kept.append(whole)
    jpeg.found.icc = b"".join(jpeg._profile[i] for i in sorted(jpeg._profile))
    jpeg.found.extended = b"".join(jpeg._extension[i] for i in sorted(jpeg._extension))
    jpeg.pixels = b"".join([*kept, data[end:]])
    return jpeg


def segments(data: bytes) -> Iterator[tuple[int, bytes, bytes, int]]:
    """Marker, content and all bytes of each segment in front of the scans, and where it ends."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == _START_OF_SCAN or marker in range(0xD0, 0xDA) or marker in (0, 1):
            return
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data):
            return
        yield marker, data[at + 4 : end], data[at:end], end
        at = end


def _keep(jpeg: Jpeg, marker: int, body: bytes) -> bool:
    """Take a segment's metadata, if it is one that says nothing of the pixels; whether it is."""
    found = jpeg.found
    if marker == _APP1 and body.startswith(EXIF):
        # Large ones go on in the next segment.
        found.exif += body if not found.exif else body[len(EXIF) :]
    elif marker == _APP1 and body.startswith(XMP):
        found.xmp = found.xmp or body[len(XMP) :]
    elif marker == _APP1 and body.startswith(EXTENDED) and len(body) > len(EXTENDED) + 40:
        (offset,) = struct.unpack_from(">I", body, len(EXTENDED) + 36)
        jpeg._extension[offset] = body[len(EXTENDED) + 40 :]
    elif marker == _APP2 and body.startswith(ICC) and len(body) > len(ICC) + 2:
        jpeg._profile[body[len(ICC)]] = body[len(ICC) + 2 :]
    elif marker == _APP2 and body.startswith(MULTIPLE):
        jpeg.several = True
    elif marker == _APP13 and body.startswith(PHOTOSHOP):
        found.iptc = found.iptc or iptc(body[len(PHOTOSHOP) :])
    elif marker == _COMMENT:
        found.comment = found.comment or body
    return (_APP1 <= marker <= 0xEF and marker != _APP14) or marker == _COMMENT


def iptc(resources: bytes) -> bytes:
    """IPTC out of Photoshop's resources; the others are of the picture that was."""
    at = 0
    while resources[at : at + 4] == b"8BIM" and at + 12 <= len(resources):
        (number,) = struct.unpack_from(">H", resources, at + 4)
        at += 6 + (resources[at + 6] + 2) // 2 * 2
        size = int.from_bytes(resources[at : at + 4], "big")
        if number == _IPTC:
            return resources[at + 4 : at + 4 + size]
        at += 4 + (size + 1) // 2 * 2
    return b""


def dressed(encoded: bytes, added: list[bytes]) -> Iterator[bytes]:
    """The pieces of a file with segments put in behind JFIF's."""
    end = 2
    for marker, _, _, following in segments(encoded):
        if marker != _APP0:
            break
        end = following
    yield encoded[:end]
    yield from added
    yield encoded[end:]


def _segment(marker: int, body: bytes) -> bytes:
    if len(body) > ROOM:
        raise ValueError(f"{len(body)} bytes are too many for a segment of JPEG")
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def exif_segment(block: bytes) -> bytes:
    """EXIF in a segment.

    Raises:
        ValueError: if it is too large.
    """
    return _segment(_APP1, EXIF + block)


def xmp_segments(text: str) -> bytes:
    """XMP in one segment, or as an extension in as many as it takes."""
    packet = text.encode()
    if len(XMP) + len(packet) <= ROOM:
        return _segment(_APP1, XMP + packet)
    digest = hashlib.md5(packet, usedforsecurity=False).hexdigest().upper()
    step, pieces = 65400, [_segment(_APP1, XMP + xmp.stub(digest).encode())]
    for at in range(0, len(packet), step):
        head = EXTENDED + digest.encode() + struct.pack(">II", len(packet), at)
        pieces.append(_segment(_APP1, head + packet[at : at + step]))
    return b"".join(pieces)


def icc_segments(profile: bytes) -> bytes:
    """An ICC profile in as many segments as it takes.

    Raises:
        ValueError: if it is too large.
    """
    step = ROOM - len(ICC) - 2
    parts = [profile[i : i + step] for i in range(0, len(profile), step)]
    if len(parts) > 255:
        raise ValueError("a profile is too large for JPEG")
    return b"".join(_segment(_APP2, ICC + bytes((i + 1, len(parts))) + part) for i, part in enumerate(parts))


def iptc_resource(data: bytes) -> bytes:
    """IPTC as one of Photoshop's resources."""
    return b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(data)) + data + b"\0" * (len(data) % 2)


def iptc_segment(data: bytes) -> bytes:
    """IPTC in a segment.

    Raises:
        ValueError: if it is too large.
    """
    return _segment(_APP13, PHOTOSHOP + iptc_resource(data))


def comment_segment(data: bytes) -> bytes:
    """A comment in a segment.

    Raises:
        ValueError: if it is too large.
    """
    return _segment(_COMMENT, data)
