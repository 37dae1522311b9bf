"""Metadata put into files whose pixels are written already, a piece at a time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import name_some
from ..files.boundary import first_line
from . import beside, exif, jpeg, png, tiff, xmp
from .ifd import EXIF
from .picture import Metadata

_T = TypeVar("_T")


class Dressing:
    """The metadata of one result.

    Args:
        width, height: of the result, which EXIF and XMP are to say.

    Attributes:
        lost: what could not be kept, and why.
    """

    def __init__(self, metadata: Metadata, width: int, height: int):
        self.lost: list[str] = []
        self._of = metadata = replace(metadata, dpi=beside.resolution(metadata.dpi, None, self.lost))
        block, text = (metadata.exif or b"").removeprefix(jpeg.EXIF), metadata.xmp
        self._exif = self._tried("EXIF", lambda: exif.sized(block, width, height)) if block else None
        self._xmp = self._tried("XMP", lambda: xmp.sized(text.decode(), width, height)) if text else None

    def _tried(self, what: str, make: Callable[[], _T]) -> _T | None:
        """What ``make`` makes; None, and a line for it, if anything goes wrong."""
        try:
            return make()
        except Exception as e:
            self.lost.append(f"{what} ({first_line(e)})")
            return None

    def _not_held(self, by: str, *names: str) -> None:
        """Pieces that the format has no place for."""
        meta = self._of
        there = {
            "text": (f"texts: {name_some(map(_shown, meta.text))}", meta.text),
            "comment": ("the comment", meta.comment),
            "iptc": ("IPTC", meta.iptc),
            "chunks": ("PNG's colour space: the result will look different", meta.chunks),
            "dpi": ("the resolution", meta.dpi and not self._exif),
        }
        self.lost += [f"{there[name][0]} ({by} has no place for it)" for name in names if there[name][1]]

    def png(self, encoded: bytes) -> Iterator[bytes]:
        """The pieces of a PNG file with everything in it."""
        meta, added = self._of, list[bytes | None]()
        for name, body in meta.chunks.items():
            added.append(png.chunk(name, body))
        if icc := meta.icc:
            added.append(
                self._tried("the ICC profile", lambda: png.chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
            )
        if dpi := meta.dpi:
            added.append(self._tried("the resolution", lambda: png.resolution_chunk(dpi)))
        if block := self._exif:
            added.append(self._tried("EXIF", lambda: png.chunk(b"eXIf", block)))
        if text := self._xmp:
            added.append(self._tried("XMP", lambda: png.text_chunk(png.XMP, text)))
        comment = meta.comment.decode("utf-8", "replace").strip("\0") if meta.comment else ""
        texts = dict(meta.text) if not comment or "Comment" in meta.text else {**meta.text, "Comment": comment}
        for key, value in texts.items():
            added.append(self._tried(f"the text {_shown(key)}", partial(png.text_chunk, key, value)))
        if iptc := meta.iptc:
            resource = jpeg.iptc_resource(iptc)
            added.append(self._tried("IPTC", lambda: png.raw_profile_chunk("iptc", resource)))
        return png.dressed(encoded, [piece for piece in added if piece])

    def jfif(self) -> dict[str, Any]:
        """Options for Pillow: JPEG's own header has the resolution."""
        return {"dpi": self._of.dpi} if self._of.dpi else {}

    def jpeg(self, encoded: bytes) -> Iterator[bytes]:
        """The pieces of a JPEG file with everything that it holds."""
        meta, added = self._of, list[bytes | None]()
        if block := self._exif:
            added.append(self._exif_of_jpeg(block))
        if text := self._xmp:
            added.append(self._tried("XMP", lambda: jpeg.xmp_segments(text)))
        if iptc := meta.iptc:
            added.append(self._tried("IPTC", lambda: jpeg.iptc_segment(iptc)))
        if icc := meta.icc:
            added.append(self._tried("the ICC profile", lambda: jpeg.icc_segments(icc)))
        if comment := meta.comment:
            added.append(self._tried("the comment", lambda: jpeg.comment_segment(comment)))
        self._not_held("JPEG", "text", "chunks")
        return jpeg.dressed(encoded, [piece for piece in added if piece])

    def _exif_of_jpeg(self, block: bytes) -> bytes | None:
        """Where it is too large, what makers' notes leave of it."""
        if len(block) + len(jpeg.EXIF) > jpeg.ROOM:
            rest = self._tried("EXIF", lambda: exif.without_notes(block))
            if rest and len(rest) + len(jpeg.EXIF) <= jpeg.ROOM:
                self.lost.append("EXIF: the maker's note (JPEG holds 64 KB)")
                return jpeg.exif_segment(rest)
            self.lost.append(f"EXIF ({len(block)} bytes; JPEG holds 64 KB)")
            return None
        return self._tried("EXIF", lambda: jpeg.exif_segment(block))

    def webp(self) -> dict[str, bytes]:
        """Options for Pillow, with all that WebP holds."""
        self._not_held("WebP", "text", "comment", "iptc", "chunks", "dpi")
        icc = self._of.icc
        if icc and icc[16:20] == b"GRAY":
            # Its pixels become RGB.
            self.lost.append("the ICC profile (WebP has no grey)")
            icc = None
        found = {"exif": self._exif, "xmp": self._xmp.encode() if self._xmp else None, "icc_profile": icc}
        return {name: value for name, value in found.items() if value}

    def tiff(self, path: Path) -> None:
        """Put tags into a TIFF file; if that fails with all of them, with fewer."""
        meta = self._of
        self._not_held("TIFF", "text", "comment", "chunks")
        if self._exif and self._tried("EXIF", lambda: _has_note(self._exif)):
            self.lost.append("EXIF: the maker's note (TIFF would move it, and it says where it lies)")
        packet = self._xmp.encode() if self._xmp else None
        pieces = {"block": self._exif, "xmp": packet, "icc": meta.icc, "iptc": meta.iptc, "dpi": meta.dpi}
        names = {"block": "EXIF", "xmp": "XMP", "icc": "the ICC profile", "iptc": "IPTC", "dpi": "the resolution"}
        try:
            tiff.described(path, **pieces)  # type: ignore[arg-type]
        except OSError:
            # The disk, perhaps.
            raise
        except Exception:
            for name, value in pieces.items():
                alone = dict.fromkeys(pieces) | {name: value}
                if value:
                    self._tried(names[name], partial(tiff.described, path, **alone))


def _has_note(block: bytes | None) -> bool:
    tags = exif.parsed(block or b"")[1]
    return EXIF in tags and exif.MAKER_NOTE in tags[EXIF].inside


def _shown(key: str) -> str:
    """A name from a file, as short and as plain as messages are."""
    shown = key if key.isascii() and key.isprintable() and key else ascii(key)
    return shown if len(shown) <= 40 else shown[:37] + "..."
