"""Directories of tags, in TIFF files and EXIF: read from files that may be damaged, and written anew."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from ..errors import PictureError

#: Bytes of a value by its type.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
#: Bytes that change places between the byte orders: a rational is two numbers.
_UNITS = {kind: 4 if kind in (5, 10) else size for kind, size in SIZES.items()}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}

EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005
#: Tags whose value is where another directory is, by the tag of the directory that they stand in (0: the first).
POINTERS = {0: (EXIF, GPS), EXIF: (INTEROP,)}
_LONG, _UNDEFINED, _LONG8 = 4, 7, 16


@dataclass(frozen=True)
class Entry:
    """A tag as it stands in a file.

    Attributes:
        at: where its entry is.
        where: where its data are; inside the entry if they are small.
        size: bytes of data.
    """

    tag: int
    type: int
    count: int
    at: int
    where: int

    @property
    def size(self) -> int:
        return SIZES[self.type] * self.count


@dataclass(frozen=True)
class Directory:
    """A directory of tags.

    Attributes:
        entries: by tag; the first of several.
        next: where the next directory is said to be, 0 if there is none.
        next_at: where that is written; None if the directory is cut off before it.
        wrong: tags whose entries are damaged.
    """

    entries: Mapping[int, Entry]
    next: int
    next_at: int | None
    wrong: tuple[int, ...]


class Structure:
    """A TIFF file, BigTIFF too, or a block of EXIF.

    Raises:
        PictureError: if it does not begin as one.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.size = file.seek(0, 2)
        head = self.read(0, 16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(f"{self.order}H", head[2:4])[0] if self.order and len(head) >= 8 else 0
        self.big = version == 43
        if version not in (42, 43) or (self.big and len(head) < 16):
            raise PictureError("there is no TIFF header")
        self.first: int = struct.unpack(
            f"{self.order}{'Q' if self.big else 'I'}", head[8:16] if self.big else head[4:8]
        )[0]

    def read(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes."""
        if at < 0 or at >= self.size:
            return b""
        self._file.seek(at)
        return self._file.read(min(size, self.size - at))

    def directory(self, at: int) -> Directory:
        """The directory there; what is cut off or points nowhere is left out.

        Raises:
            PictureError: if there is none.
        """
        counter, form, inside = ("Q", "HHQ", 8) if self.big else ("H", "HHI", 4)
        head = self.read(at, struct.calcsize(counter))
        if at < 8 or len(head) < struct.calcsize(counter):
            raise PictureError("a directory of tags is not in the file")
        (count,) = struct.unpack(self.order + counter, head)
        start, step = at + len(head), 4 + 2 * inside
        table = self.read(start, min(count, 65535) * step)
        entries: dict[int, Entry] = {}
        wrong: list[int] = []
        for i in range(len(table) // step):
            tag, kind, number = struct.unpack_from(self.order + form, table, i * step)
            where = start + i * step + step - inside
            if kind in SIZES and SIZES[kind] * number > inside:
                (where,) = struct.unpack_from(self.order + ("Q" if self.big else "I"), table, i * step + step - inside)
            if kind not in SIZES or where + SIZES[kind] * number > self.size:
                wrong.append(tag)
            elif tag not in entries:
                entries[tag] = Entry(tag, kind, number, start + i * step, where)
        behind = start + count * step
        pointer = self.read(behind, inside) if len(table) == count * step else b""
        if len(pointer) < inside:
            return Directory(entries, 0, None, (*wrong, *([0] if len(table) < count * step else [])))
        (following,) = struct.unpack(self.order + ("Q" if self.big else "I"), pointer)
        return Directory(entries, following, behind, tuple(wrong))

    def data(self, entry: Entry) -> bytes:
        """The bytes of its values."""
        return self.read(entry.where, entry.size)

    def numbers(self, directory: Directory, tag: int, default: tuple[int, ...] = (), most: int = 64) -> tuple[int, ...]:
        """The first values of a tag of whole numbers; the default if it is not there or not of whole numbers."""
        entry = directory.entries.get(tag)
        if entry is None or entry.type not in _CODES:
            return default
        count = min(entry.count, most)
        data = self.read(entry.where, count * SIZES[entry.type])
        return struct.unpack(f"{self.order}{count}{_CODES[entry.type]}", data) or default

    def rational(self, directory: Directory, tag: int) -> float | None:
        """The first value of a tag of fractions; None if there is none or it is no number."""
        entry = directory.entries.get(tag)
        if entry is None or entry.type not in (5, 10) or entry.count < 1:
            return None
        above, below = struct.unpack(self.order + ("II" if entry.type == 5 else "ii"), self.read(entry.where, 8))
        return above / below if below else None


@dataclass(frozen=True)
class Tag:
    """A tag to be written.

    Attributes:
        data: in the byte order of the whole.
        inside: the directory that it points to, if it is a pointer.
    """

    type: int
    data: bytes
    inside: dict[int, Tag] = field(default_factory=dict)

    @classmethod
    def long(cls, order: str, value: int) -> Tag:
        return cls(_LONG, struct.pack(f"{order}I", value))

    @classmethod
    def rational(cls, order: str, value: float) -> Tag:
        return cls(5, struct.pack(f"{order}II", round(value * 10000), 10000))


def swapped(tags: dict[int, Tag]) -> dict[int, Tag]:
    """The same tags in the other byte order."""
    return {name: Tag(tag.type, _turned(tag), swapped(tag.inside)) for name, tag in tags.items()}


def _turned(tag: Tag) -> bytes:
    unit = _UNITS[tag.type]
    return tag.data if unit == 1 else b"".join(tag.data[i : i + unit][::-1] for i in range(0, len(tag.data), unit))


def laid_out(
    tags: Mapping[int, Tag],
    order: str,
    start: int,
    big: bool = False,
    as_they_are: Mapping[int, bytes] | None = None,
    following: int = 0,
) -> bytes:
    """A directory, with what it points to behind it.

    Args:
        start: where in the file it will be, an even number.
        as_they_are: entries by tag whose bytes are copied; what they point to stays where it is.
        following: where the next directory is.

    Raises:
        struct.error: if it gets too large for 32 bits.
    """
    pointer, counter, inside = ("Q", "Q", 8) if big else ("I", "H", 4)
    rows = dict(as_they_are or {})
    place = start + struct.calcsize(counter) + (4 + 2 * inside) * len({*rows, *tags}) + inside
    behind = b""
    for name, tag in tags.items():
        kind, data, count = tag.type, tag.data, len(tag.data) // SIZES[tag.type]
        if tag.inside:
            position = place + len(behind)
            behind += laid_out(tag.inside, order, position, big)
            kind, count = (_LONG8, 1) if position >= 2**32 else (_LONG, 1)
            data = struct.pack(order + ("Q" if kind == _LONG8 else "I"), position)
        elif len(data) > inside:
            data = struct.pack(order + pointer, place + len(behind))
            behind += tag.data + b"\0" * (len(tag.data) % 2)
        rows[name] = struct.pack(f"{order}HH{pointer}", name, kind, count) + data.ljust(inside, b"\0")
    table = b"".join(rows[name] for name in sorted(rows))
    return struct.pack(order + counter, len(rows)) + table + struct.pack(order + pointer, following) + behind
