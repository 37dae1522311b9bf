"""Which pictures are meant."""

from __future__ import annotations

from pathlib import Path

from ..errors import PictureError
from .formats import known_endings


def known_extensions() -> set[str]:
    """Endings of the formats that are read here, lower case, with the dot."""
    return known_endings()


def find_pictures(inputs: list[Path]) -> list[Path]:
    """Files as they are, folders as the pictures in them, by name.

    Raises:
        PictureError: if an input does not exist or a folder holds no picture.
    """
    known = known_extensions()
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in known)
            if not inside:
                raise PictureError(f"there is no picture in the folder {path}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise PictureError(f"there is no file or folder {path}")
    return found
