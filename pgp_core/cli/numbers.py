"""Numbers that people type."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

#: :data:`pgp_core.number.MAX_SEED`, without waiting for PyTorch.
MAX_SEED = 2**64 - 1
#: No number that people give has more digits, and Python refuses more than 4300.
_LONGEST = 40


def whole(what: str, low: int, high: int) -> Callable[[str], int]:
    """A type for argparse: a whole number in a range, else wrong usage.

    Args:
        what: what it is, for the message: "a latent's side".
    """

    def parse(text: str) -> int:
        try:
            value = int(text) if len(text) <= _LONGEST else low - 1
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{what}: {low} to {high} is possible, not {_shown(text)}")
        return value

    return parse


def integer(text: str) -> int:
    """A type for argparse: a whole number, where the options' own class knows the range."""
    try:
        if len(text) <= _LONGEST:
            return int(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"a whole number is needed, not {_shown(text)}")


def finite(text: str) -> float:
    """A type for argparse: a number that is neither NaN nor infinite; the options' own class knows the range."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"a finite number is needed, not {_shown(text)}")
    return value


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


#: As PyTorch and ComfyUI take it.
seed = whole("a seed", 0, MAX_SEED)
#: How many of something; 1 is the least.
count = whole("a count", 1, 10**6)
budget = whole("a budget", 0, 10**18)


def share(text: str) -> float:
    """A type for argparse: 0 to 1."""
    value = finite(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"0 (faithful) to 1 (natural) are possible, not {value:g}")
    return value
