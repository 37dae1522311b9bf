"""Checks of numbers that come from outside: of which kind they are, and in which range."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from .errors import PGPError

#: The largest seed that PyTorch takes, which is ComfyUI's too.
MAX_SEED = 2**64 - 1
#: No message needs more of what was given.
_LONGEST = 40


def number(
    value: Any,
    what: str,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    whole: bool = False,
    unit: str = "",
    error: type[PGPError] = PGPError,
) -> None:
    """Check a number. NaN and infinity are refused, and so is True.

    A comparison alone does not do: NaN is neither below a limit nor above it, so ``if x < 0`` lets it through.

    Args:
        what: begins the message: "the scale is", "steps must be".
        low, high: the range, ends included; None for no end.
        above: what it must be more than, in place of ``low``.
        whole: whether it must be an int.
        unit: what it counts, for the message: "pixels".
        error: what is raised.

    Raises:
        PGPError: of the class given, saying what was expected and what there was.
    """
    right = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if right and _inside(value, low, high, above):
        return
    kind = "" if right else "a whole number, " if whole else "a number, "
    expected = f"{kind}{_range(low, high, above)}".removesuffix(", ") or "a finite number"
    raise error(f"{what} {expected}{unit and ' '}{unit}, not {shown(value)}")


def _inside(value: Any, low: float | None, high: float | None, above: float | None) -> bool:
    # An integer may be too large for a float, but is finite.
    finite = isinstance(value, Integral) or math.isfinite(value)
    over = (low is None or value >= low) and (above is None or value > above)
    return bool(finite and over and (high is None or value <= high))


def _range(low: float | None, high: float | None, above: float | None) -> str:
    if above is not None:
        return f"above {above:g}" + (f" and at most {high:g}" if high is not None else "")
    if low is not None and high is not None:
        return f"{_plain(low)} to {_plain(high)}"
    if low is not None:
        return f"{_plain(low)} or more"
    return f"{_plain(high)} at most" if high is not None else ""


def _plain(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def shown(value: Any) -> str:
    """What was given in place of a number, short enough for a message."""
    if isinstance(value, int) and value.bit_length() > 256:
        # Python writes no integer of more than 4300 digits.
        return f"a number of {int(value.bit_length() * math.log10(2)) + 1} digits"
    try:
        text = f"{value:g}" if isinstance(value, float) else repr(value)
    except ValueError:
        text = f"a {type(value).__name__} of too large numbers"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
