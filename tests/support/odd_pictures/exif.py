"""Blocks of EXIF written byte by byte, good and damaged."""

from __future__ import annotations

import struct

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
Tag = tuple[int, int, int, bytes]


def directory(tags: list[Tag], at: int, following: int = 0) -> bytes:
    """A directory that starts at ``at``, its long values behind it; little-endian."""
    entries, values = b"", b""
    place = at + 2 + 12 * len(tags) + 4
    for tag, kind, count, value in sorted(tags):
        if len(value) > 4:
            entries += struct.pack("<HHII", tag, kind, count, place + len(values))
            values += value + b"\0" * (len(value) % 2)
        else:
            entries += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following) + values


def block(tags: list[Tag], following: int = 0) -> bytes:
    """One directory with its header."""
    return b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + directory(tags, 8, following)


def text(tag: int, words: str) -> Tag:
    return tag, ASCII, len(words) + 1, words.encode() + b"\0"


def short(tag: int, number: int) -> Tag:
    return tag, SHORT, 1, struct.pack("<H", number)


def rationals(tag: int, *pairs: tuple[int, int]) -> Tag:
    return tag, RATIONAL, len(pairs), b"".join(struct.pack("<II", *pair) for pair in pairs)


def camera(orientation: int = 1) -> bytes:
    """As a camera writes it: the Exif directory with a maker's note, GPS, and a thumbnail in a directory of its own."""
    first = [text(0x10F, "Maker"), text(0x110, "Model 1"), short(0x112, orientation), rationals(0x11A, (72, 1)),
             rationals(0x11B, (72, 1)), short(0x128, 2), text(0x132, "2024:05:06 07:08:09")]  # fmt: skip
    inner = [rationals(0x829A, (1, 250)), rationals(0x829D, (28, 10)), (0x9000, UNDEFINED, 4, b"0232"),
             (0x927C, UNDEFINED, 60, b"Maker\0\0\1" + bytes(range(52))), short(0xA002, 14), short(0xA003, 10),
             (0x9101, UNDEFINED, 4, b"\1\2\3\0")]  # fmt: skip
    gps = [text(1, "N"), rationals(2, (52, 1), (31, 1), (12, 10)), text(3, "E"), rationals(4, (13, 1), (24, 1), (5, 1))]
    long = [(0x8769, LONG, 1, b"\0" * 4), (0x8825, LONG, 1, b"\0" * 4)]
    at_inner = 8 + len(directory([*first, *long], 8))
    at_gps = at_inner + len(directory(inner, at_inner))
    at_thumbnail = at_gps + len(directory(gps, at_gps))
    pointers = [(0x8769, LONG, 1, struct.pack("<I", at_inner)), (0x8825, LONG, 1, struct.pack("<I", at_gps))]
    jpeg = b"\xff\xd8\xff\xd9"
    size = (0x202, LONG, 1, struct.pack("<I", len(jpeg)))
    where = at_thumbnail + len(directory([size, size], at_thumbnail))
    thumbnail = [(0x201, LONG, 1, struct.pack("<I", where)), size]
    return (
        b"Exif\0\0II*\0"
        + struct.pack("<I", 8)
        + directory([*first, *pointers], 8, at_thumbnail)
        + directory(inner, at_inner)
        + directory(gps, at_gps)
        + directory(thumbnail, at_thumbnail)
        + jpeg
    )


def damaged() -> dict[str, bytes]:
    """Blocks that are wrong in a way each, none of which says an orientation that can be read."""
    whole = camera()
    return {
        "truncated": whole[: len(whole) // 2],
        "one byte": b"Exif\0\0I",
        "no header": b"Exif\0\0" + b"\x99" * 40,
        "points nowhere": b"Exif\0\0II*\0" + struct.pack("<I", 0x7FFFFFFF),
        "sub-IFD nowhere": block([text(0x10F, "Maker"), (0x8769, LONG, 1, b"\xff\xff\xff\x7f")]),
        "sub-IFD of text": block([text(0x8769, "a text"), text(0x8825, "and more of it")]),
        "circle": block([text(0x10F, "Maker")], following=8),
        "odd types": block([(0x10F, 0, 1, b"\0"), (0x110, 99, 3, b"abc"), text(0x112, "six"), (0x11A, ASCII, 1, b"x")]),
        "counts": block([(0x10F, ASCII, 0xFFFFFFFF, b"abcd"), (0x11A, RATIONAL, 0x1FFFFFFF, b"abcd")]),
        "zero rationals": block([rationals(0x11A, (0, 0)), rationals(0x11B, (1, 0)), short(0x128, 2)]),
        "many": b"Exif\0\0II*\0" + struct.pack("<IH", 8, 65535) + b"\0" * 30,
    }
