"""Settings as people read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....visible import visible

#: What keys are called where taking "_" for a space would not do.
_NAMES = {"sha256": "SHA-256", "cfg": "CFG", "lq": "LQ", "hq": "HQ", "sr": "SR", "pgp_diffsr": "pgp-diffsr"}


def words(data: Any, name: str = "") -> list[tuple[str, str]]:
    """JSON data as lines of name and value, those of nested data under their own names: ``files, unet``."""
    if isinstance(data, Mapping):
        lines: list[tuple[str, str]] = []
        for key, value in data.items():
            said = _NAMES.get(str(key), visible(key).replace("_", " "))
            lines += words(value, f"{name}, {said}" if name else said)
        return lines
    if isinstance(data, (list, tuple)):
        if any(isinstance(x, (Mapping, list, tuple)) for x in data):
            return [line for i, x in enumerate(data, 1) for line in words(x, f"{name} {i}")]
        return [(name, ", ".join(_value(x) for x in data) or "none")]
    return [(name, _value(data))]


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return place(value) if isinstance(value, Path) else visible(value) or "(empty)"


def place(path: Path, page: Path | None = None) -> str:
    """Where a file or folder is: seen from the page's folder where it lies below that, and without the name of
    anybody's home."""
    text = os.fspath(path.absolute())
    for root, shown in ((page.absolute().parent if page else None, ""), (Path.home(), "~")):
        if root is not None and len(root.parts) > 1:
            try:
                inside = path.absolute().relative_to(root)
            except ValueError:
                continue
            text = os.path.join(shown, inside) if shown else os.fspath(inside)
            break
    return visible(text)
