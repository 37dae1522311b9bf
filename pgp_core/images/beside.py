"""Metadata of a file, put in order for an upright picture, whatever state it was in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..files.boundary import first_line
from . import colour, exif, xmp
from .picture import Metadata

#: Bytes of XMP that are looked at. Those of a photograph with all its history are far fewer.
_MOST_XMP = 2**24
#: Pixels per inch that every format can say.
_LEAST_DPI, _MOST_DPI = 0.01, 60000.0
#: What libvips writes where it knows none: a pixel a millimetre.
_UNKNOWN = 25.4


@dataclass
class RawMetadata:
    """Metadata as it stands in the file.

    Attributes:
        extended: XMP's extension, as JPEG has it.
        dpi: of the format itself; EXIF may say it too.
        turned: whether the pixels are upright whatever EXIF says.
        lost: what has been left out already.
    """

    exif: bytes = b""
    xmp: bytes = b""
    extended: bytes = b""
    icc: bytes = b""
    iptc: bytes = b""
    comment: bytes = b""
    text: Mapping[str, str] = field(default_factory=dict)
    chunks: Mapping[bytes, bytes] = field(default_factory=dict)
    dpi: tuple[float, ...] | None = None
    orientation: int | None = None
    turned: bool = False
    lost: list[str] = field(default_factory=list)


def settled(found: RawMetadata) -> tuple[Metadata, int]:
    """What can be kept, and how the pixels are to be turned; what cannot is added to ``found.lost``.

    The profile is left as it is: see :func:`with_profile`.
    """
    lost = found.lost
    block = _exif(found)
    lost += block.notes
    text = _xmp(found)
    orientation = found.orientation or (block.orientation if block.said else None)
    orientation = orientation or (xmp.orientation(text) if text else None) or 1
    metadata = Metadata(
        icc=found.icc or None,
        exif=block.exif,
        xmp=xmp.upright(text).encode() if text else None,
        iptc=found.iptc or None,
        comment=found.comment or None,
        text=found.text,
        dpi=resolution(found.dpi, block.dpi, lost),
        chunks=found.chunks,
    )
    return metadata, 1 if found.turned else orientation


def _exif(found: RawMetadata) -> exif.Exif:
    try:
        return exif.read(found.exif) if found.exif else exif.Exif(None)
    except Exception as e:
        # For damage of a kind that nobody thought of: the picture itself is still good.
        return exif.Exif(None, notes=(f"EXIF (damaged: {first_line(e)})",))


def _xmp(found: RawMetadata) -> str | None:
    """The text of XMP, with its extension; None if it is not well-formed XML."""
    if len(found.xmp) > _MOST_XMP:
        found.lost.append("XMP (too large)")
        return None
    text = xmp.checked(found.xmp) if found.xmp else None
    if text is None:
        if found.xmp.strip(b"\0 "):
            found.lost.append("XMP (damaged)")
        return None
    if not found.extended:
        return text
    more = xmp.joined(text, found.extended) if len(found.extended) <= _MOST_XMP else None
    if more is None:
        found.lost.append("the extension of XMP (damaged)")
    return more or text


def resolution(
    said: tuple[float, ...] | None, in_exif: tuple[float, float] | None, lost: list[str]
) -> tuple[float, float] | None:
    """The first of both, pixels per inch, that every format can say.

    One that makes no sense is added to ``lost``; but EXIF's own, which stays in EXIF.
    """
    for dpi in (said, in_exif):
        try:
            along = (float(dpi[0]), float(dpi[1])) if dpi else None
        except (TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError):
            along = (math.nan, math.nan)
        if along is None:
            continue
        if all(abs(d - _UNKNOWN) < 1e-3 for d in along):
            continue
        if all(math.isfinite(d) and _LEAST_DPI <= d <= _MOST_DPI for d in along):
            return along
        # Pillow and cameras write 0, or 1 pixel an inch, where they mean that nobody knows.
        if dpi is said and any(d != 0 for d in along):
            lost.append(f"the resolution ({along[0]:g} x {along[1]:g} dpi)")
    return None


def with_profile(
    metadata: Metadata, before: bytes | None, after: bytes | None, grey: bool, lost: list[str]
) -> Metadata:
    """The metadata with the profile, if it is one for the pixels' channels.

    Args:
        before: of the file; after: of the pixels, None if they have been converted out of it.
    """
    if after:
        space = colour.space(after)
        if space != ("GRAY" if grey else "RGB"):
            kind = f"it is for {space}, the picture is {'grey' if grey else 'RGB'}" if space else "damaged"
            lost.append(f"the ICC profile ({kind})")
            after = None
    elif before and (space := colour.space(before)) in ("", "RGB", "GRAY"):
        why = f"it is for {space}, the picture is not" if space else "damaged"
        lost.append(f"the ICC profile ({why}: the colours are converted without it)")
    return replace(metadata, icc=after or None)
