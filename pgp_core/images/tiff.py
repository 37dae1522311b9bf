"""TIFF's pages and tags: which page is the picture, how it is stored, and its metadata."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from ..errors import PictureError
from . import exif, jpeg
from .ifd import EXIF, GPS, POINTERS, Directory, Entry, Structure, Tag, laid_out, swapped

#: Tags that say something of the picture and not of how it is stored: names, makers, dates, places, XP's texts.
DESCRIPTIVE = frozenset(
    (
        *(0x0B, 0x10D, 0x10E, 0x10F, 0x110, 0x11D, 0x131, 0x132, 0x13B, 0x13C, 0x8298, 0x4746, 0x4749, EXIF, GPS),
        *range(0x9C9B, 0x9CA0),
    )
)
_XMP, _ICC, _IPTC, _PHOTOSHOP = 0x2BC, 0x8773, 0x83BB, 0x8649
_KIND, _OLD_KIND, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 0xFE, 0xFF, 0x100, 0x101, 0x102, 0x103, 0x106
_ORIENTATION, _SAMPLES, _SUB_DIRECTORIES, _EXTRA, _SAMPLE_FORMAT, _DNG_VERSION = (
    0x112,
    0x115,
    0x14A,
    0x152,
    0x153,
    0xC612,
)
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x11A, 0x11B, 0x128
#: Photometric interpretations of what comes straight from a sensor.
_SENSOR = (32803, 34892)
_MOST_PAGES, _MOST_ENTRIES, _MOST_INSIDE = 10000, 1000000, 32


@dataclass(frozen=True)
class Page:
    """One page of a file.

    Attributes:
        index: in the file's chain of pages.
        bits, formats: of the samples; 1 is a whole number without sign, 2 with one, 3 a fraction.
        colours: how many samples are colours.
        extra: what the others are: 0 nobody says, 1 alpha that colours are multiplied by, 2 alpha.
    """

    index: int
    directory: Directory
    width: int
    height: int
    bits: int
    formats: tuple[int, ...]
    photometric: int
    colours: int
    extra: tuple[int, ...]
    orientation: int
    reduced: bool


def pages(structure: Structure) -> list[Page]:
    """All pages.

    Raises:
        PictureError: if there is none.
    """
    found: list[Page] = []
    at, seen, entries = structure.first, set[int](), 0
    while at and at not in seen and len(found) < _MOST_PAGES and entries < _MOST_ENTRIES:
        seen.add(at)
        try:
            directory = structure.directory(at)
        except PictureError:
            if not found:
                raise
            break
        entries += len(directory.entries) + len(directory.wrong)
        found.append(_page(structure, directory, len(found)))
        at = directory.next
    return found


def main(found: list[Page]) -> tuple[Page, int]:
    """The picture, and how many there are beside smaller versions of them and masks."""
    whole = [page for page in found if not page.reduced] or found
    return whole[0], len(whole)


def _page(structure: Structure, directory: Directory, index: int) -> Page:
    def one(tag: int, default: int) -> int:
        return structure.numbers(directory, tag, (default,), 1)[0]

    samples, extra = one(_SAMPLES, 1), structure.numbers(directory, _EXTRA)
    photometric = one(_PHOTOMETRIC, 1)
    colours = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}.get(photometric, samples - len(extra))
    bits = structure.numbers(directory, _BITS, (1,))
    orientation = one(_ORIENTATION, 1)
    return Page(
        index,
        directory,
        one(_WIDTH, 0),
        one(_HEIGHT, 0),
        max(bits),
        structure.numbers(directory, _SAMPLE_FORMAT, (1,)),
        photometric,
        min(colours, samples),
        extra[: max(0, samples - colours)] or (2,) * (samples - colours),
        orientation if 1 <= orientation <= 8 else 1,
        # The first bit: a smaller version of another page; the third: a mask.
        bool(one(_KIND, 0) & 5) or one(_OLD_KIND, 1) == 2,
    )


def is_raw(structure: Structure, found: list[Page]) -> bool:
    """Whether a sensor's values are in the file, beside whatever else."""
    if any(_DNG_VERSION in page.directory.entries or page.photometric in _SENSOR for page in found):
        return True
    for page in found[:_MOST_INSIDE]:
        for at in structure.numbers(page.directory, _SUB_DIRECTORIES, most=_MOST_INSIDE):
            try:
                inside = structure.directory(at)
            except PictureError:
                continue
            if structure.numbers(inside, _PHOTOMETRIC, (0,), 1)[0] in _SENSOR:
                return True
    return False


@dataclass(frozen=True)
class Beside:
    """What a page says beside its pixels, as :class:`pgp_core.images.picture.Metadata` has it."""

    exif: bytes | None
    xmp: bytes
    icc: bytes
    iptc: bytes
    dpi: tuple[float, float] | None
    notes: tuple[str, ...]


def beside(structure: Structure, page: Page) -> Beside:
    """Descriptive tags, with EXIF and GPS, become a block of EXIF as other formats have it."""
    directory = page.directory
    kept = {tag: entry for tag, entry in directory.entries.items() if tag in DESCRIPTIVE}
    wrong = tuple(tag for tag in directory.wrong if tag in DESCRIPTIVE or tag == 0)
    tags, damaged = exif.gathered(structure, Directory(kept, 0, 0, wrong))
    notes = [f"EXIF: {', '.join(dict.fromkeys(damaged))} (damaged)"] if damaged else []
    if EXIF in tags and exif.MAKER_NOTE in tags[EXIF].inside:
        tags[EXIF] = Tag(4, b"", {k: t for k, t in tags[EXIF].inside.items() if k != exif.MAKER_NOTE})
        notes.append("EXIF: the maker's note")
    block = exif.laid_out_block(tags, structure.order)
    resources = jpeg.iptc(_data(structure, directory.entries.get(_PHOTOSHOP)))
    return Beside(
        block,
        _data(structure, directory.entries.get(_XMP)),
        _data(structure, directory.entries.get(_ICC)),
        _data(structure, directory.entries.get(_IPTC)) or resources,
        exif.resolution(structure, directory),
        tuple(notes),
    )


def _data(structure: Structure, entry: Entry | None) -> bytes:
    return structure.data(entry) if entry is not None and entry.size <= 2**26 else b""


def described(
    path: Path,
    block: bytes | None,
    xmp: bytes | None,
    icc: bytes | None,
    iptc: bytes | None,
    dpi: tuple[float, float] | None,
) -> None:
    """Put metadata into a TIFF file: a new directory is written behind everything, with the old one's entries.

    Raises:
        PictureError, struct.error, OSError: if it is no TIFF file, or gets too large for one; nothing has been
            changed that matters then.
    """
    with path.open("r+b") as file:
        structure = Structure(file)
        first = structure.directory(structure.first)
        step = 20 if structure.big else 12
        rows = {tag: structure.read(entry.at, step) for tag, entry in first.entries.items()}
        for tag in (_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT):
            # An encoder's own idea.
            rows.pop(tag, None)
        tags = _described(structure.order, block, xmp, icc, iptc, dpi)
        start = structure.size + structure.size % 2
        directory = laid_out(
            tags,
            structure.order,
            start,
            structure.big,
            {t: row for t, row in rows.items() if t not in tags},
            first.next,
        )
        if not structure.big and start + len(directory) >= 2**32:
            raise PictureError("the file is too large")
        file.seek(start)
        file.write(directory)
        file.seek(8 if structure.big else 4)
        file.write(struct.pack(structure.order + ("Q" if structure.big else "I"), start))


def _described(
    order: str,
    block: bytes | None,
    xmp: bytes | None,
    icc: bytes | None,
    iptc: bytes | None,
    dpi: tuple[float, float] | None,
) -> dict[int, Tag]:
    tags: dict[int, Tag] = {}
    if block:
        own, inside = exif.parsed(block)
        tags = {tag: value for tag, value in inside.items() if tag in DESCRIPTIVE}
        if EXIF in tags:
            tags[EXIF] = Tag(4, b"", {k: t for k, t in tags[EXIF].inside.items() if k != exif.MAKER_NOTE})
        tags = {k: t for k, t in tags.items() if k not in POINTERS[0] or t.inside}
        tags = tags if own == order else swapped(tags)
    if dpi:
        tags |= {_X_RESOLUTION: Tag.rational(order, dpi[0]), _Y_RESOLUTION: Tag.rational(order, dpi[1])}
        tags[_RESOLUTION_UNIT] = Tag(3, struct.pack(f"{order}H", 2))
    for tag, kind, data in ((_XMP, 1, xmp), (_ICC, 7, icc), (_IPTC, 7, iptc)):
        if data:
            tags[tag] = Tag(kind, data)
    return tags
