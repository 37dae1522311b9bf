"""How large a result is to be. It is read before PyTorch is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import PGPError
from ..number import number

MIN_SCALE, MAX_SCALE = 1.0, 8.0
#: Pixels along a side that are allowed at most; ComfyUI's own limit.
MAX_SIDE = 16384


@dataclass(frozen=True)
class Size:
    """How large the result is to be; exactly one of these is given.

    Attributes:
        scale: result over input, 1 to 8.
        width, height, longest: pixels of that side of the result; the other side follows in proportion.
        both: width and height of the result, for one that is to lie on another picture pixel by pixel.

    Raises:
        PGPError: if none or several are given, or one is out of range.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    longest: int | None = None
    both: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in vars(self).items() if v is not None}
        if len(given) != 1:
            raise PGPError(f"give one of scale, width, height and longest side, not {len(given)} of them")
        ((name, value),) = given.items()
        if name == "both":
            for side, pixels in zip(("width", "height"), value, strict=True):
                number(pixels, f"the {side} is", 1, MAX_SIDE, whole=True, unit="pixels")
        elif name == "scale":
            number(value, "the scale is", MIN_SCALE, MAX_SCALE)
        else:
            side = name.replace("longest", "longest side")
            number(value, f"the {side} is", 1, MAX_SIDE, whole=True, unit="pixels")

    def of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the result for a picture of this size; halves are rounded up.

        Raises:
            PGPError: if the result would be more than 8 times as large as the picture, or too large at all.
        """
        if self.both is not None:
            target = self.both
        elif self.scale is not None:
            target = _round(width * self.scale), _round(height * self.scale)
        else:
            along_width = self.width is not None or (self.longest is not None and width >= height)
            wanted = self.width or self.height or self.longest or 0
            if along_width:
                target = wanted, _round(height * wanted / width)
            else:
                target = _round(width * wanted / height), wanted
        if max(target) > MAX_SIDE:
            raise PGPError(
                f"{width}x{height} would become {target[0]}x{target[1]}; {MAX_SIDE} pixels a side are the most"
            )
        if max(target[0] / width, target[1] / height) > MAX_SCALE + 0.5:
            raise PGPError(
                f"{width}x{height} would become {target[0]}x{target[1]}, more than {MAX_SCALE:g} times as large"
            )
        return target


def _round(x: float) -> int:
    return max(1, math.floor(x + 0.5))


def same_proportions(have: Sequence[int], want: Sequence[int], rounding: int) -> bool:
    """Whether one scale takes a picture to another size, whose sides may be off by less than ``rounding`` pixels.

    Args:
        have, want: height and width.
    """
    scales = [((w - rounding) / h, (w + rounding) / h) for h, w in zip(have, want, strict=True)]
    return max(low for low, _ in scales) < min(high for _, high in scales)
