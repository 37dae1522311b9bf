"""Which pictures are meant."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PictureError
from .formats import known_endings


def known_extensions() -> set[str]:
    """Endings of the formats that are read here, lower case, with the dot."""
    return known_endings()


@dataclass(frozen=True)
class FoundPictures:
    """What the inputs of a command stand for.

    Attributes:
        pictures: files, each once, in the order of the inputs; those of a folder by name.
        failed: inputs, and entries of folders, that cannot be pictures, each with what is wrong.
        lone: whether one file was named and nothing else.
    """

    pictures: tuple[Path, ...]
    failed: tuple[tuple[Path, PictureError], ...]
    lone: bool

    @property
    def total(self) -> int:
        """How many there are, good and bad."""
        return len(self.pictures) + len(self.failed)


def look_for(inputs: Sequence[Path]) -> FoundPictures:
    """Takes files as they are, and folders as the pictures in them. Nothing is opened, so nothing can block.

    Folders in folders are not looked into. In folders, names that start with a dot are left out: they are hidden, and
    what other systems leave behind (``._a.jpg``) are no pictures.
    """
    pictures: dict[tuple[str, str], Path] = {}
    failed: list[tuple[Path, PictureError]] = []
    for path in inputs:
        try:
            inside = _inside(path) if path.is_dir() else [path]
        except (OSError, ValueError) as e:
            failed.append((path, _wrong(path, e)))
            continue
        for one in inside:
            try:
                check_file(one)
            except PictureError as e:
                failed.append((one, e))
            else:
                pictures.setdefault(place(one), one)
        if not inside:
            failed.append((path, PictureError(f"there is no picture in the folder {path}")))
    lone = len(inputs) == 1 and not (inputs and _is_folder(inputs[0]))
    return FoundPictures(tuple(pictures.values()), tuple(failed), lone)


def find_pictures(inputs: Sequence[Path]) -> list[Path]:
    """Like :func:`look_for`, for callers that want all or none.

    Raises:
        PictureError: if an input can be no picture or a folder holds none.
    """
    found = look_for(inputs)
    if found.failed:
        raise found.failed[0][1]
    return list(found.pictures)


def check_file(path: Path) -> None:
    """Make sure that opening ``path`` opens a file: pipes and devices would block, or never end.

    Raises:
        PictureError: if there is none, it is of another kind, or it is empty.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as e:
        raise _wrong(path, e) from None
    if stat.S_ISDIR(status.st_mode):
        raise PictureError(f"{path} is a folder, not a picture")
    if not stat.S_ISREG(status.st_mode):
        raise PictureError(f"{path} is a pipe, a socket or a device, not a file: pictures are read from files")
    if not status.st_size:
        raise PictureError(f"{path} is empty: it has no bytes")


def place(path: Path) -> tuple[str, str]:
    """A key for a path: the same for the same folder and name, however the folder was written."""
    return folder_id(path.parent), path.name


def folder_id(folder: Path) -> str:
    """The same for every way of writing a folder's name, by links or in other letters too where those are alike."""
    try:
        status = folder.stat()
    except (OSError, ValueError):
        return os.path.abspath(folder)
    return f"{status.st_dev} {status.st_ino}"


def _inside(folder: Path) -> list[Path]:
    known = known_extensions()
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith("."))
    meant = [folder / name for name in names if os.path.splitext(name)[1].lower() in known]
    return [path for path in meant if not _is_folder(path)]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _wrong(path: Path, error: OSError | ValueError) -> PictureError:
    """Why a name leads to no file."""
    number = error.errno if isinstance(error, OSError) else errno.ENOENT
    if number == errno.ELOOP:
        return PictureError(f"{path} is a link that leads in a circle")
    if number in (errno.ENOENT, errno.ENOTDIR):
        if isinstance(error, OSError) and os.path.islink(path):
            return PictureError(f"{path} is a link that leads nowhere")
        return PictureError(f"there is no file or folder {path}")
    return PictureError(f"{path} cannot be opened: {error.strerror if isinstance(error, OSError) else error}")
