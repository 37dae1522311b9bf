"""Errors that a user can act on: one line that says what was wrong and what to do."""

from __future__ import annotations


class PGPError(ValueError):
    """Base of every error that this package raises on purpose.

    The message is one line for the person who gave the input; the command line prints it without a
    traceback, ComfyUI shows it on the node.
    """


class PlanError(PGPError):
    """A prune plan is malformed, too new, or does not fit the model."""


class CheckpointError(PGPError):
    """A model file is damaged, incomplete, or of another architecture."""


class GuidanceError(PGPError):
    """A guidance file, or what it is applied to, does not fit."""


class ConditioningError(PGPError):
    """A CONDITIONING cannot be kept in a file, or a file holds none that fits."""


class PictureError(PGPError):
    """A picture cannot be read, or a result cannot be written."""


class Cancelled(Exception):  # noqa: N818 - like asyncio.CancelledError, no error
    """Raised out of a run that the caller asked to stop; not an error of the input."""


def name_some(names: object, limit: int = 3) -> str:
    """The first few of ``names`` and how many there are, for messages: ``a, b, c and 12 more (15)``."""
    listed = sorted(str(n) for n in names)  # type: ignore[attr-defined]
    shown = ", ".join(listed[:limit])
    rest = len(listed) - limit
    return f"{shown} and {rest} more ({len(listed)} in all)" if rest > 0 else f"{shown} ({len(listed)} in all)"
