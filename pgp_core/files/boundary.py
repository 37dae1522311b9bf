"""Parsing files that strangers made: whatever the parser raises becomes an error about that file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Cancelled, PGPError


def first_line(error: BaseException) -> str:
    """The first line of what another library says, or the name of its error."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "") or type(error).__name__


@contextmanager
def parsing(what: object, error: type[PGPError], advice: str = "") -> Iterator[None]:
    """A block in which a parser reads what may be damaged or hostile.

    No list of exceptions would do: Pillow, libvips, json, tomllib, pickle and safetensors raise what their own code
    ran into, from struct.error to RecursionError, and other kinds with every release.

    Args:
        what: the file, or the part of it, as the message is to call it.
        error: what is raised instead.
        advice: what to do, put after a colon.

    Raises:
        PGPError: of the class given, caused by what the parser raised. Errors of this package's own, and being
            cancelled, pass as they are.
    """
    try:
        yield
    except (PGPError, Cancelled):
        raise
    except Exception as e:
        raise error(f"{what} is damaged ({first_line(e)}){f': {advice}' if advice else ''}") from e
