"""What a script reads, one JSON object a line on stdout, and what people read on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any


def emit(data: dict[str, Any]) -> None:
    """Print one JSON line and flush, so that a reader sees it at once."""
    print(json.dumps(data), flush=True)  # noqa: T201


def table(rows: list[tuple[str, str]]) -> None:
    """Two columns for people, on stderr."""
    width = max((len(a) for a, _ in rows), default=0)
    for a, b in rows:
        print(f"{a:<{width}}  {b}", file=sys.stderr)  # noqa: T201


def say(text: str) -> None:
    """One line for people, on stderr."""
    print(f"pgp-diffsr: {text}", file=sys.stderr)  # noqa: T201
