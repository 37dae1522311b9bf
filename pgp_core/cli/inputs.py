"""Pictures that a command reads one after another; those that it cannot read are named, skipped and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import PGPError, PictureError
from .output import say

T = TypeVar("T")


class Inputs:
    """The pictures that a command is given: files, and those in folders. What cannot be a picture is named at once.

    Args:
        paths: of files and folders.
        limit: the first so many pictures only.

    Attributes:
        pictures: that look as if they could be read.
        failed: how many could not.

    Raises:
        PictureError: if there is none.
    """

    def __init__(self, paths: Sequence[Path], limit: int | None = None):
        from ..images.finding import look_for

        found = look_for(paths)
        self.pictures = found.pictures[:limit]
        self.failed = 0
        if not self.pictures and len(found.failed) == 1:
            raise found.failed[0][1]
        self._total = len(self.pictures) + len(found.failed)
        for _, error in found.failed:
            self.fail(error)
        if not self.pictures:
            raise PictureError("there is no picture to read")

    def fail(self, error: PGPError) -> None:
        """One picture is left out. That of a lone one is not said here: it ends the command."""
        self.failed += 1
        if self._total > 1:
            say(f"error: {error}")

    def each(self, read: Callable[[Path], T]) -> Iterator[T]:
        """What ``read`` makes of each picture.

        Raises:
            PGPError: at the end, if none could be read.
        """
        from ..batch.failures import one_picture

        last: PGPError | None = None
        good = 0
        for path in self.pictures:
            try:
                with one_picture(path):
                    made = read(path)
            except PGPError as e:
                last = e
                self.fail(e)
                continue
            good += 1
            yield made
        if not good and last is not None:
            raise last if self._total == 1 else PictureError(f"none of the {self._total} pictures can be read")

    def status(self) -> int:
        """The exit status, after saying how many were left out, if any."""
        if self.failed:
            say(f"{self.failed} of {self._total} pictures failed and were left out")
        return 1 if self.failed else 0
