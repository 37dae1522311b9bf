"""Where ``upscale -o`` leads: to a folder, or to the one file that is named."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import PictureError
from ..files.leftovers import temporary_name

#: :data:`pgp_core.images.writing.FORMATS`.
FORMATS = {"png": ".png", "tiff": ".tif", "jpeg": ".jpg", "webp": ".webp"}
_WRITTEN = {suffix: name for name, suffix in FORMATS.items()} | {".jpeg": "jpeg", ".tiff": "tiff"}
#: Endings of pictures that Pillow knows nothing of.
_OTHERS = {".heic", ".heif", ".avif", ".jxl", ".svg", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".xcf"}
#: What must fit on the disk before a picture is begun.
_LEAST = 1 << 16


def destination(text: str, lone: bool, name: str | None) -> tuple[Path | None, str]:
    """The file that ``text`` names, None for a folder, and what is wrong with it, if anything.

    A folder is what is one already, ends in a slash, or has no picture's ending.

    Args:
        lone: whether one file is to be upscaled, named as such.
        name: of the format that was asked for.
    """
    path, suffix = Path(text), Path(text).suffix.lower()
    if text.endswith(("/", os.sep)) or os.path.isdir(text) or not _is_picture(suffix):
        return None, ""
    if suffix not in _WRITTEN:
        formats = ", ".join(FORMATS)
        return None, f"results are written as {formats}, not {path.suffix}; a slash behind {text} makes it a folder"
    if not lone:
        return None, f"{text} is one file, and the inputs are several, or a folder: give a folder with -o"
    if name is not None and _WRITTEN[suffix] != name:
        return None, f"--format {name} and -o {text} contradict each other"
    return path, ""


def make_folder(folder: Path) -> None:
    """Make the folder for the results, if it is missing.

    Raises:
        PictureError: if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        wrong = next((p for p in (folder, *folder.parents) if p.exists() and not p.is_dir()), folder)
        raise PictureError(f"{wrong} is a file: no folder for the results can be made there") from None
    except (OSError, ValueError) as e:
        raise PictureError(f"the folder {folder} cannot be made: {getattr(e, 'strerror', None) or e}") from None


def check_room(folder: Path) -> None:
    """Write a little and remove it again: no hour of work for a result that has no place.

    Raises:
        PictureError: if nothing can be written to the folder.
    """
    trial = folder / temporary_name()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            trial.write_bytes(b"\0" * _LEAST)
        finally:
            trial.unlink(missing_ok=True)
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise PictureError(f"nothing can be written to the folder {folder}: {reason}") from e


def _is_picture(suffix: str) -> bool:
    from PIL import Image

    return suffix in _OTHERS or suffix in Image.registered_extensions()
