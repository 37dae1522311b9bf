"""Numbers that people type."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole(what: str, low: int, high: int) -> Callable[[str], int]:
    """A type for argparse: a whole number in a range, else wrong usage.

    Args:
        what: what it is, for the message: "a latent's side".
    """

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{what}: {low} to {high} is possible, not {text[:40]}")
        return value

    return parse


#: Up to the largest that PyTorch takes, and ComfyUI gives.
SEED = whole("a seed", 0, 2**64 - 1)
