"""What libraries print while they read or write a picture, as lines that say which picture it was."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .output import say

_MOST = 3


@contextmanager
def attributed(name: object) -> Iterator[None]:
    """A block in which libraries work on one picture.

    libtiff and libvips print on descriptor 2 themselves, Pillow warns. After the block each thing is said once, with
    the picture's name; where the block raises, the error says it.
    """
    printed: list[str] = []
    with warnings.catch_warnings(record=True) as warned, _descriptor(printed):
        warnings.simplefilter("always")
        yield
    said = dict.fromkeys(" ".join(line.split()) for line in (*printed, *(str(w.message) for w in warned)))
    for line in [line for line in said if line][:_MOST]:
        say(f"{name}: {line}")


@contextmanager
def _descriptor(lines: list[str]) -> Iterator[None]:
    """Collect what is printed on descriptor 2."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):
        # There is none.
        yield
        return
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                with suppress(OSError, ValueError):
                    sys.stderr.flush()
                os.dup2(kept, 2)
            file.seek(0)
            lines += file.read(1 << 16).decode("utf-8", "replace").splitlines()
    finally:
        os.close(kept)
