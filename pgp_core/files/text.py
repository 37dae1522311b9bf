"""Text files as editors save them: UTF-8 with or without a byte order mark, or UTF-16 with one."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

#: UTF-32's marks begin as UTF-16's do, so they come first. Python's codecs of these names take the mark away.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(data: bytes) -> str:
    """Text of a file's bytes: as its byte order mark says, else UTF-8. Line ends become ``\\n``.

    Raises:
        UnicodeDecodeError: if it is none of these.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: str | os.PathLike[str]) -> str:
    """A text file; see :func:`decode_text`.

    Raises:
        OSError: if it cannot be read.
        UnicodeDecodeError: if it is no text in one of these encodings.
    """
    return decode_text(Path(path).read_bytes())
