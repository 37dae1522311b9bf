"""Errors that a user can act on: one line that says what was wrong and what to do."""

from __future__ import annotations

import os
import re

from .visible import OBEYED

#: Names in damaged files can be of any length and hold anything; no message needs more.
_LONGEST = 600
_CONTROL = re.compile(f"{OBEYED.pattern}+")


class PGPError(ValueError):
    """Base of every error that this package raises on purpose.

    The message is one line for the person who gave the input; the command line prints it without a
    traceback, ComfyUI shows it on the node. Line breaks and control characters, which names from a file may
    hold, become spaces, and a message that is far too long is cut in its middle. Paths are shortened so that they do
    not say whose machine it is: people share messages.
    """

    def __init__(self, message: object = ""):
        text = _CONTROL.sub(" ", _without_home(str(message)))
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
        super().__init__(text)


class PlanError(PGPError):
    """A prune plan is malformed, too new, or does not fit the model."""


class CheckpointError(PGPError):
    """A model file is damaged, incomplete, or of another architecture."""


class WrongUsage(PGPError):  # noqa: N818 - argparse says it so
    """What is given does not go together; on the command line the exit status is 2."""


class GuidanceError(PGPError):
    """A guidance file, or what it is applied to, does not fit."""


class ConditioningError(PGPError):
    """A CONDITIONING cannot be kept in a file, or a file holds none that fits."""


class ReportError(PGPError):
    """A redundancy report is malformed, too new, or does not fit the model."""


class PictureError(PGPError):
    """A picture cannot be read, or a result cannot be written."""


class ConfigError(PGPError):
    """A run's configuration has a key that is unknown, missing, or of another kind or range."""


class TrainingError(PGPError):
    """A run cannot start, or cannot go on."""


class Cancelled(Exception):  # noqa: N818 - like asyncio.CancelledError, no error
    """A run was stopped because the caller asked for it; the input is not at fault."""


def name_some(names: object, limit: int = 3) -> str:
    """The first few of ``names`` and how many there are, for messages: ``a, b, c and 12 more (15)``."""
    listed = sorted(str(n) for n in names)  # type: ignore[attr-defined]
    shown = ", ".join(listed[:limit])
    rest = len(listed) - limit
    return f"{shown} and {rest} more ({len(listed)} in all)" if rest > 0 else f"{shown} ({len(listed)} in all)"


def _without_home(text: str) -> str:
    """Paths below the working directory from there on, those below the home folder from ``~`` on."""
    try:
        here = os.getcwd()
    except OSError:
        here = ""
    home = os.path.expanduser("~")
    for folder, shown in ((here, ""), (home, f"~{os.sep}")):
        # A root, or a home that is not known, says nothing.
        if len(folder) > 3 and os.path.isabs(folder):
            start = re.compile(rf"(?<![\w./\\-]){re.escape(folder.rstrip(os.sep) + os.sep)}")
            text = shown.join(start.split(text))
    return text
