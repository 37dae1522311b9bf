"""Parameters of a degradation, checked one by one."""

from __future__ import annotations

import math
from typing import Any

from ...errors import PGPError

#: Least and greatest value of both ends of a range; the last says that the range must hold 1.
_RANGES: dict[str, tuple[float, float, bool]] = {
    "kernel_range": (3, 51, False),
    "blur_sigma": (0.01, 50, False),
    "betag_range": (0.01, 50, True),
    "betap_range": (0.01, 50, True),
    "resize_range": (0.05, 8, True),
    "noise_range": (0, 255, False),
    "poisson_scale_range": (0, 50, False),
    "jpeg_range": (1, 100, False),
}
_WHOLE = ("kernel_range", "jpeg_range")
_CHANCES = {"kernel_prob": 6, "resize_prob": 3}


def checked(name: str, value: Any) -> Any:
    """``value`` with lists as tuples.

    Raises:
        PGPError: if it is not what the parameter ``name`` of :class:`.SecondOrder` may be.
    """
    if isinstance(value, list):
        value = tuple(value)
    kind = name.removesuffix("2")
    if kind == "scale":
        if not _is_whole(value) or not 1 <= value <= 8:
            raise PGPError(f"scale must be a whole number from 1 to 8, not {value!r}")
    elif kind in _CHANCES:
        _check_chances(name, value, _CHANCES[kind])
    elif kind in _RANGES:
        _check_range(name, value, kind)
    elif not _is_number(value) or not 0 <= value <= 1:
        raise PGPError(f"{name} must be a number from 0 to 1, not {value!r}")
    return value


def _check_chances(name: str, value: Any, count: int) -> None:
    fits = isinstance(value, tuple) and len(value) == count and all(_is_number(v) and v >= 0 for v in value)
    if not fits or abs(sum(value) - 1) > 1e-6:
        raise PGPError(f"{name} must be {count} probabilities whose sum is 1, not {value!r}")


def _check_range(name: str, value: Any, kind: str) -> None:
    low, high, holds_one = _RANGES[kind]
    whole = kind in _WHOLE
    number = _is_whole if whole else _is_number
    what = f"two {'whole ' if whole else ''}numbers, the smaller first, from {low:g} to {high:g}"
    fits = isinstance(value, tuple) and len(value) == 2 and all(number(v) and low <= v <= high for v in value)
    if not fits or value[0] > value[1]:
        raise PGPError(f"{name} must be {what}, not {value!r}")
    if holds_one and not value[0] <= 1 <= value[1]:
        raise PGPError(f"{name} must be {what}, with 1 between them, not {value!r}")
    if kind == "kernel_range" and not (value[0] % 2 and value[1] % 2):
        raise PGPError(f"{name} must be two odd numbers, not {value!r}")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
