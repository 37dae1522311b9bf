"""What the library's reader of safetensors does not look at: names that stand in a header twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Bytes; the header of an SDXL checkpoint has 0.3 MB, a workflow in it a few.
_LARGEST = 64 << 20


def check_header(path: Path) -> None:
    """Refuse a header in which a name stands twice: of two readers one would take the first, the other the last.

    Raises:
        ValueError: if one does, or the header is larger than any model's. Damaged headers may raise anything; the
            library finds what else is wrong.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LARGEST:
            raise ValueError(f"its header has {length} bytes")
        json.loads(file.read(length), object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} stands in its header twice")
    return found
