"""What a result says of itself: that this program made it, and of which file.

So a result is recognised whatever it is called, is not taken for that of another picture of the same name, and is
not enlarged once more. It stands in EXIF's ProcessingSoftware, which is there for this.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from .. import __version__
from ..images.picture import Metadata

_TAG, _ASCII = 0x000B, 2
_NAME = b"Exif\0\0"
#: What a JPEG holds of EXIF; more than this would cost it all of it.
_MOST = 65_500
_SAID = re.compile(rb"PGP-DiffSR [0-9A-Za-z.+-]{1,40} of ([0-9a-f]{12})-([0-9a-f]{8})")
#: So much of both ends of a file is looked at.
_ENDS = 1 << 17


@dataclass(frozen=True)
class Origin:
    """Which file a result was made of.

    Attributes:
        content: of its size and the bytes at both its ends.
        path: of its absolute name. Both are digests, so a result that is passed on gives no names away.
    """

    content: str
    path: str

    def __str__(self) -> str:
        return f"PGP-DiffSR {__version__} of {self.content}-{self.path}"


def origin_of(source: Path) -> Origin:
    """What the results of ``source`` say.

    Raises:
        OSError: if it cannot be read.
    """
    size, head, tail = _ends(source)
    content = hashlib.sha256(b"%d " % size + head + tail).hexdigest()
    return Origin(content[:12], hashlib.sha256(os.fsencode(os.path.realpath(source))).hexdigest()[:8])


def said_by(result: Path) -> Origin | None:
    """Which file ``result`` says that it was made of; None if it says nothing, or cannot be read."""
    try:
        if not result.is_file():
            return None
        _, head, tail = _ends(result)
        found = _SAID.search(head) or _SAID.search(tail)
        if found is None and head.startswith(b"\x89PNG"):
            # It may stand behind a large profile, or long texts.
            with Image.open(result, formats=["PNG"]) as file:
                found = _SAID.search(bytes(file.info.get("exif", b"")))
    except Exception:
        # A file of that name that is no picture at all says nothing either.
        return None
    return None if found is None else Origin(*(part.decode() for part in found.groups()))


def marked(metadata: Metadata, origin: Origin) -> Metadata:
    """``metadata`` that says which file the result was made of; unchanged where its EXIF has no room for that."""
    return replace(metadata, exif=_with_entry(metadata.exif, str(origin).encode()))


def _with_entry(exif: bytes | None, text: bytes) -> bytes | None:
    """EXIF with one more entry in its first directory, all others as they are, byte for byte: the directory is
    written again behind everything that has a place already."""
    body = exif.removeprefix(_NAME) if exif else b"II*\0" + struct.pack("<IHI", 8, 0, 0)
    try:
        order = {b"II*\0": "<", b"MM\0*": ">"}[body[:4]]
        (first,) = struct.unpack_from(f"{order}I", body, 4)
        (count,) = struct.unpack_from(f"{order}H", body, first)
        end = first + 2 + 12 * count
        (following,) = struct.unpack_from(f"{order}I", body, end)
    except (KeyError, struct.error):
        return exif
    entries = [body[i : i + 12] for i in range(first + 2, end, 12)]
    value = text + b"\0"
    body += b"\0" * (len(body) % 2)
    own = struct.pack(f"{order}HHII", _TAG, _ASCII, len(value), len(body))
    body += value + b"\0" * (len(value) % 2)
    others = [e for e in entries if struct.unpack(f"{order}H", e[:2]) != (_TAG,)]
    entries = sorted([own, *others], key=lambda e: struct.unpack(f"{order}H", e[:2]))
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + struct.pack(f"{order}I", following)
    changed = _NAME + body[:4] + struct.pack(f"{order}I", len(body)) + body[8:] + directory
    return exif if exif and len(changed) > _MOST >= len(exif) else changed


def _ends(path: Path) -> tuple[int, bytes, bytes]:
    """Size and both ends; of a small file the first is all of it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_ENDS)
        file.seek(max(len(head), size - _ENDS))
        return size, head, file.read(_ENDS)
