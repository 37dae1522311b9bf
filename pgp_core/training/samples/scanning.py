"""A folder of pictures with captions beside them: what is in it, before anything is decoded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...batch.failures import one_picture
from ...errors import PGPError, PictureError, name_some
from ...files.text import read_text
from ...images.finding import check_file, known_extensions
from ...images.reading import open_picture


@dataclass(frozen=True)
class Scan:
    """A folder's pictures.

    Attributes:
        folder: that was looked through.
        pictures: those that can be used, by name.
        captions: a text for each, "" where there is none.
        small: too small for a crop.
        broken: cannot be read, folders too; found when looking, not when decoding.
    """

    folder: Path
    pictures: tuple[Path, ...]
    captions: tuple[str, ...]
    small: tuple[Path, ...]
    broken: tuple[Path, ...]


def scan(folder: Path, least: int) -> Scan:
    """Look through a folder and the folders in it; names that start with a dot are left out.

    Only the pictures' headers are read, and their captions: ``a.txt`` beside ``a.jpg``, UTF-8, one line or more.

    Args:
        least: the smaller side that a picture must have, pixels.

    Raises:
        PGPError: if there is no such folder, no picture in it that can be used, or a caption is not UTF-8.
    """
    if not folder.is_dir():
        raise PGPError(f"there is no folder {folder}" if not folder.exists() else f"{folder} is no folder")
    usable, captions, small = [], [], []
    broken: list[Path] = []
    for path in _pictures(folder, broken):
        try:
            check_file(path)
            with one_picture(path):
                size = _size(path)
        except PictureError:
            broken.append(path)
            continue
        if min(size) < least:
            small.append(path)
            continue
        usable.append(path)
        captions.append(_caption(path.with_suffix(".txt")))
    found = Scan(folder, tuple(usable), tuple(captions), tuple(small), tuple(broken))
    if not usable:
        raise PGPError(_nothing(found, least))
    return found


def named(paths: tuple[Path, ...], folder: Path) -> str:
    """The first few, relative to ``folder``."""
    return name_some(path.relative_to(folder) for path in paths)


def _nothing(found: Scan, least: int) -> str:
    """Why there is no usable picture."""
    if not found.small and not found.broken:
        return f"there is no picture in the folder {found.folder} or the folders in it"
    reasons = []
    if found.small:
        reasons.append(f"smaller than a crop of {least}x{least} pixels: {named(found.small, found.folder)}")
    if found.broken:
        reasons.append(f"broken: {named(found.broken, found.folder)}")
    return f"no picture in the folder {found.folder} can be used; {'; '.join(reasons)}"


def _pictures(folder: Path, broken: list[Path]) -> Iterator[Path]:
    """Every picture's name; folders that cannot be listed are added to ``broken``."""
    known = known_extensions()
    seen: set[str] = set()

    def wrong(e: OSError) -> None:
        broken.append(Path(e.filename))

    for here, folders, files in os.walk(folder, onerror=wrong, followlinks=True):
        # A link to a folder above would never end.
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in known:
                yield Path(here, name)


def _size(path: Path) -> tuple[int, int]:
    """Width and height, as stored."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as file:
                return file.size
    except Image.DecompressionBombError as e:
        raise PictureError(f"{path} is too large to be opened ({e})") from None
    except Exception:
        # Of other kinds, and of files that are not in order, the careful way says what they are.
        height, width = open_picture(path).pixels.shape[:2]
        return width, height


def _caption(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            # A pipe would never end.
            raise PGPError(f"the caption {path} is no file: remove it to train without it")
        return " ".join(read_text(path).split())
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as e:
        raise PGPError(
            f"the caption {path} is not UTF-8 (byte {e.start}): save it as UTF-8, or remove it to train without it"
        ) from None
    except OSError as e:
        raise PGPError(f"the caption {path} cannot be read ({e.strerror}): remove it to train without it") from None
