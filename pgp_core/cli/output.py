"""What a script reads, one JSON object a line on stdout, and what people read on stderr.

File names and what files say of themselves may hold anything: a terminal is never sent a character that it would obey.
Whoever reads may go away (``| head``), and either stream may be closed or full.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import sys
import warnings
from contextlib import suppress
from typing import Any, TextIO

from ..visible import visible

_HALVES = re.compile("[\\ud800-\\udfff]")
#: What shells say of a program that ended because nobody reads: 128 and SIGPIPE.
NOBODY_READS = 141


def emit(data: dict[str, Any]) -> None:
    """Print one JSON line and flush, so that a reader sees it at once.

    Raises:
        SystemExit: if stdout is closed, full, or nobody reads it any more.
    """
    # JSON escapes all of C0 and what is not ASCII; this is what is left.
    write_out(json.dumps(_readable(data), allow_nan=False).replace("\x7f", "\\u007f") + "\n")


def _readable(data: Any) -> Any:
    """Data that any reader of JSON accepts: Python's own writer would write NaN, and halves of surrogate pairs for
    bytes of a name that are not UTF-8. Those become ``\\xff``."""
    if isinstance(data, str):
        return _HALVES.sub(lambda half: visible(half[0]), data)
    if isinstance(data, dict):
        return {_readable(k): _readable(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [_readable(v) for v in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def table(rows: list[tuple[str, str]]) -> None:
    """Two columns for people, on stderr."""
    shown = [(visible(a), visible(b)) for a, b in rows]
    width = max((len(a) for a, _ in shown), default=0)
    for a, b in shown:
        plain(f"{a:<{width}}  {b}")


def say(text: str) -> None:
    """One line for people, on stderr."""
    plain(f"pgp-diffsr: {text}")


def plain(text: str) -> None:
    """One line for people, on stderr, as it is.

    Raises:
        SystemExit: if nobody reads it any more.
    """
    with suppress(ValueError):  # of a file that was closed
        _write(sys.stderr, visible(text) + "\n")


def write_out(text: str) -> None:
    """A text for stdout; see :func:`emit`."""
    if sys.stdout is None or sys.stdout.closed:
        say("error: standard output is closed: nothing can be written to it")
        raise SystemExit(1)
    try:
        _write(sys.stdout, text)
    except OSError as e:
        say(f"error: standard output cannot be written to ({e.strerror or e})")
        _forget(sys.stdout)
        raise SystemExit(1) from None


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError as e:
            # A terminal of ASCII, say.
            stream.write(text.encode(e.encoding, "backslashreplace").decode(e.encoding))
        stream.flush()
    except OSError as e:
        # Windows says that of a pipe without reader.
        if isinstance(e, BrokenPipeError) or (os.name == "nt" and e.errno == errno.EINVAL):
            _forget(stream)
            raise SystemExit(NOBODY_READS) from None
        if stream is not sys.stderr:
            raise
        # There is nowhere left to say it, and what is being made matters more.


def _forget(stream: TextIO) -> None:
    """Let what is still to be written to a stream go nowhere: Python would complain of it at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def prepare_streams() -> None:
    """Make closed streams harmless, and let no terminal's encoding stop a line.

    Where descriptor 1 or 2 is closed, the next file that is opened gets its number: what a library prints would land
    in a result.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != number:
                    os.close(opened)
    if sys.stderr is None:
        # Bars and warnings go there without asking.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def lines_of_others() -> None:
    """Let what libraries log and warn of reach stderr in one harmless line each.

    A program that this one is a part of, and has handlers of its own, keeps them.
    """
    root = logging.getLogger()
    if root.handlers:
        return

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    root.addHandler(Lines(logging.WARNING))
    warnings.showwarning = lambda message, *_args, **_more: say(str(message))


def finish_streams() -> None:
    """Write what is left; as :func:`write_out` where that cannot be done."""
    if sys.stdout is not None and not sys.stdout.closed:
        write_out("")
