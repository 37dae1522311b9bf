"""EXIF: read from whatever cameras and programs left, and changed to be true of the result.

A block that is in order keeps every byte, makers' notes with their offsets too, except what would be wrong of the
result. Of a damaged block, what can be read is written anew.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from ..errors import PictureError
from .ifd import EXIF, INTEROP, POINTERS, Directory, Structure, Tag, laid_out

_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x112, 0x11A, 0x11B, 0x128
#: Width and height, by the directory that they stand in.
_SIZES = {0: (0x100, 0x101), EXIF: (0xA002, 0xA003), INTEROP: (0x1001, 0x1002)}
_THUMBNAIL, _THUMBNAIL_SIZE = 0x201, 0x202
#: Where a maker's note lies is part of what it says.
MAKER_NOTE = 0x927C
#: Padding, and pictures within.
_NOT_COPIED = (0xEA1C, 0x14A, 0x111, 0x117, 0x144, 0x145, _THUMBNAIL, _THUMBNAIL_SIZE)
_MOST = 2**26
_NAMES = {0x8769: "the Exif directory", 0x8825: "GPS", 0xA005: "the interoperability directory", 0: "what is cut off"}


@dataclass(frozen=True)
class Exif:
    """What a block of EXIF holds.

    Attributes:
        exif: the block without thumbnail, for an upright picture; None if nothing of it can be read.
        orientation: 1 to 8, 1 where the block does not say.
        said: whether the block says it.
        dpi: pixels per inch along both axes.
        notes: what is damaged.
    """

    exif: bytes | None
    orientation: int = 1
    said: bool = False
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def read(block: bytes) -> Exif:
    """Look through a block of EXIF, with or without its name in front. Never raises."""
    block = block.removeprefix(b"Exif\0\0")
    try:
        structure = Structure(io.BytesIO(block))
        first = structure.directory(structure.first)
        if structure.big:
            raise PictureError("it is of another kind")
    except PictureError as e:
        return Exif(None, notes=(f"EXIF ({e})",))
    (orientation,) = structure.numbers(first, _ORIENTATION, (0,), 1)
    tags, wrong = gathered(structure, first)
    if wrong or first.next_at is None:
        exif = _anew(tags, structure.order)
        notes: tuple[str, ...] = (f"EXIF: {', '.join(dict.fromkeys(wrong)) or 'its end'} (damaged)",)
        if MAKER_NOTE in (tags[EXIF].inside if EXIF in tags else {}):
            notes += ("EXIF: the maker's note",)
    else:
        exif, notes = _upright(block, structure, first), ()
    said = 1 <= orientation <= 8
    return Exif(exif, orientation if said else 1, said, resolution(structure, first), notes)


def resolution(structure: Structure, directory: Directory) -> tuple[float, float] | None:
    """Pixels per inch along both axes, as the tags say."""
    unit = structure.numbers(directory, _RESOLUTION_UNIT, (2,), 1)[0]
    both = [structure.rational(directory, tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
    if unit not in (2, 3) or both[0] is None or both[1] is None:
        return None
    factor = 2.54 if unit == 3 else 1.0
    return both[0] * factor, both[1] * factor


def sized(block: bytes, width: int, height: int) -> bytes:
    """The block for a picture of another size: what it says of width and height is changed in place."""
    structure = Structure(io.BytesIO(block))
    data = bytearray(block)
    for name, directory in _directories(structure):
        for tag, value in zip(_SIZES.get(name, ()), (width, height), strict=False):
            entry = directory.entries.get(tag)
            if entry is not None:
                short = entry.type == 3 and value < 2**16
                form = "HHIHxx" if short else "HHII"
                struct.pack_into(structure.order + form, data, entry.at, tag, 3 if short else 4, 1, value)
    return bytes(data)


def without_notes(block: bytes) -> bytes | None:
    """The block without its maker's note, and without gaps; None if nothing else is in it."""
    structure = Structure(io.BytesIO(block))
    return _anew(gathered(structure, structure.directory(structure.first))[0], structure.order)


def parsed(block: bytes) -> tuple[str, dict[int, Tag]]:
    """Byte order and tags of a block that :func:`read` gave."""
    structure = Structure(io.BytesIO(block))
    return structure.order, gathered(structure, structure.directory(structure.first))[0]


def gathered(structure: Structure, directory: Directory, name: int = 0) -> tuple[dict[int, Tag], list[str]]:
    """The tags of a directory and of those that it points to, and what is damaged."""
    wrong = [_NAMES.get(tag, f"tag 0x{tag:04X}") for tag in directory.wrong]
    tags: dict[int, Tag] = {}
    # Any number of tags can point to the same large piece.
    room = min(structure.size, _MOST)
    for tag, entry in directory.entries.items():
        if tag in POINTERS.get(name, ()):
            try:
                (at,) = structure.numbers(directory, tag, (0,), 1)
                inside, more = gathered(structure, structure.directory(at), tag)
            except PictureError:
                wrong.append(_NAMES[tag])
                continue
            wrong += more
            if inside:
                tags[tag] = Tag(4, b"", inside)
        elif room < entry.size:
            wrong.append(f"tag 0x{tag:04X}")
        elif tag not in _NOT_COPIED:
            room -= entry.size
            tags[tag] = Tag(entry.type, structure.data(entry))
    return tags, wrong


def laid_out_block(tags: dict[int, Tag], order: str) -> bytes | None:
    """A block of these tags; None if there is none."""
    if not tags:
        return None
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8) + laid_out(tags, order, 8)


def _anew(tags: dict[int, Tag], order: str) -> bytes | None:
    tags = {k: t for k, t in tags.items() if k != _ORIENTATION}
    if EXIF in tags:
        tags[EXIF] = Tag(4, b"", {k: t for k, t in tags[EXIF].inside.items() if k != MAKER_NOTE})
        if not tags[EXIF].inside:
            del tags[EXIF]
    return laid_out_block(tags, order)


def _directories(structure: Structure) -> list[tuple[int, Directory]]:
    """The first, and those that it points to, by the tag that does."""
    found = [(0, structure.directory(structure.first))]
    for name, directory in found:
        for tag in POINTERS.get(name, ()):
            (at,) = structure.numbers(directory, tag, (0,), 1)
            if tag in directory.entries:
                found.append((tag, structure.directory(at)))
    return found


def _upright(block: bytes, structure: Structure, first: Directory) -> bytes:
    """Orientation 1, and no thumbnail, which would be one of another picture."""
    data = bytearray(block)
    if _ORIENTATION in first.entries:
        at = first.entries[_ORIENTATION].at
        struct.pack_into(f"{structure.order}HHIHH", data, at, _ORIENTATION, 3, 1, 1, 0)
    if first.next and first.next_at is not None:
        try:
            second = structure.directory(first.next)
        except PictureError:
            second = Directory({}, 0, None, ())
        (at,), (size,) = (structure.numbers(second, tag, (0,), 1) for tag in (_THUMBNAIL, _THUMBNAIL_SIZE))
        if 0 < at < at + size <= len(data) and not _used(structure, at, at + size):
            data[at : at + size] = bytes(size)
            if at + size == len(data):
                del data[at:]
        struct.pack_into(f"{structure.order}I", data, first.next_at, 0)
    return bytes(data)


def _used(structure: Structure, start: int, stop: int) -> bool:
    """Whether something that stays lies between."""
    ranges = [(0, 8)]
    for _, directory in _directories(structure):
        ranges += [(e.at, e.at + 12) for e in directory.entries.values()]
        ranges += [(e.where, e.where + e.size) for e in directory.entries.values()]
        ranges += [(directory.next_at or 0, (directory.next_at or 0) + 4)]
    return any(first < stop and start < last for first, last in ranges)
