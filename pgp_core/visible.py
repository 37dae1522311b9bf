"""Names and texts of strangers' files, made fit to be read by people: nothing in them is obeyed by a terminal."""

from __future__ import annotations

import re

#: Control characters, what turns the direction of writing, what breaks lines or cannot be seen, and surrogates: Python
#: reads bytes of a name that are no UTF-8 as those.
OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def visible(text: object) -> str:
    """A text in one line, whose control characters are written out: ``\\x1b[31m``."""
    return OBEYED.sub(_escaped, str(text))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[found[0]]
    if 0xDC80 <= code <= 0xDCFF:
        # The byte that it was read from.
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
