"""XMP: XML text inside pictures, of which a few places are no longer true of the result.

It is never parsed and written again: those places are replaced, and every other byte stays.
"""

from __future__ import annotations

import re
from xml.parsers import expat

_TIFF, _EXIF, _XAP = (f"http://ns.adobe.com/{name}/1.0/" for name in ("tiff", "exif", "xap"))
_NOTE = "http://ns.adobe.com/xmp/note/"


class _Refused(Exception):  # noqa: N818
    """XMP has no document type; those that do may grow without end."""


def checked(packet: bytes) -> str | None:
    """A packet's text; None if it is not well-formed XML."""
    encoding = "utf-16" if packet[:2] in (b"\xfe\xff", b"\xff\xfe") else "utf-8-sig"
    try:
        text = packet.decode(encoding).strip("\0").strip()
        parser = expat.ParserCreate("utf-8")
        parser.StartDoctypeDeclHandler = _refuse
        parser.Parse(text.encode(), True)
    except (UnicodeError, expat.ExpatError, ValueError, _Refused):
        return None
    return text


def _refuse(*_: object) -> None:
    raise _Refused


def orientation(text: str) -> int | None:
    """The orientation that a text says, 1 to 8."""
    found = re.search(_place(text, _TIFF, "Orientation"), text)
    value = int(found["value"]) if found and len(found["value"]) == 1 else 0
    return value if 1 <= value <= 8 else None


def upright(text: str) -> str:
    """The text for an upright picture, without thumbnails."""
    text = re.sub(_place(text, _TIFF, "Orientation"), r"\g<before>1\g<after>", text)
    name = re.escape(_prefix(text, _XAP, "xmp") + "Thumbnails")
    return re.sub(rf"<{name}(?:\s[^>]*)?(?<!/)>.*?</{name}\s*>", "", text, flags=re.S)


def sized(text: str, width: int, height: int) -> str:
    """The text for a picture of another size."""
    for space, name, value in (
        (_TIFF, "ImageWidth", width),
        (_TIFF, "ImageLength", height),
        (_EXIF, "PixelXDimension", width),
        (_EXIF, "PixelYDimension", height),
    ):
        text = re.sub(_place(text, space, name), rf"\g<before>{value}\g<after>", text)
    return text


def joined(text: str, extension: bytes) -> str | None:
    """A packet with its extension put into it, which JPEG keeps apart; None if they do not fit."""
    more = checked(extension)
    inner = re.search(r"<rdf:RDF\b[^>]*>(.*)</rdf:RDF\s*>", more or "", re.S)
    end = text.rfind("</rdf:RDF")
    if inner is None or end < 0:
        return None
    note = _prefix(text, _NOTE, "xmpNote") + "HasExtendedXMP"
    text = text[:end] + inner[1] + text[end:]
    text = re.sub(rf""" ?{re.escape(note)}\s*=\s*("[^"]*"|'[^']*')""", "", text)
    text = re.sub(rf"<{re.escape(note)}\s*>[^<]*</{re.escape(note)}\s*>", "", text)
    return text if checked(text.encode()) is not None else None


def stub(digest: str) -> str:
    """A packet that says only that there is an extension."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:xmpNote="{_NOTE}" xmpNote:HasExtendedXMP="{digest}"/>'
        "</rdf:RDF></x:xmpmeta>"
    )


def _prefix(text: str, space: str, usual: str) -> str:
    found = re.search(rf"""xmlns:([\w.-]+)\s*=\s*["']{re.escape(space)}["']""", text)
    return (found[1] if found else usual) + ":"


def _place(text: str, space: str, name: str) -> re.Pattern[str]:
    """Where a number stands, as an attribute or as an element."""
    full = re.escape(_prefix(text, space, "tiff" if space == _TIFF else "exif") + name)
    return re.compile(
        rf"""(?P<before>\b{full}\s*=\s*["']|<{full}\s*>)\s*(?P<value>\d+)\s*(?P<after>["']|</{full}\s*>)"""
    )
