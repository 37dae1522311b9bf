"""How far a result has left its input: the result, brought down to the input's size, against the input.

It needs no HQ picture. A result that is nothing but its input enlarged has about 50 dB; one that adds detail has less,
as sharp edges do not come down to the blurred ones that they were made of. The HQ pictures of real pairs have about 28
against their own LQ pictures, so this is no mark of quality: a result at 15 has invented, one at 40 has not done much.

The picture is brought down as canvases are enlarged (:mod:`.resampling`): Lanczos, with what is seen carried under what
is transparent first. Of transparent pictures only what is seen counts: alpha weighs the means.

PyTorch is needed for transparent pictures alone, so that processes which measure many pictures start quickly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import PGPError
from .delta_e import delta_e
from .sizes import same_proportions

if TYPE_CHECKING:
    import torch

#: Decibels of equal pictures, and the most that there are: an error of 1e-5 of white, which 16 bits hardly show.
MOST = 100.0
#: Pixels by which a result's sides may be off its input's proportions: a position of a latent.
CELL = 8
#: Rows that are compared at a time.
STRIP = 128


@dataclass(frozen=True)
class Faithfulness:
    """What a comparison found.

    Attributes:
        db: PSNR over R, G and B in dB, at most :data:`MOST`.
        delta_e: mean CIEDE2000.
        differences: CIEDE2000 of each pixel, ``(h, w)`` float32 at the size of the comparison.
        weights: how much each counts, ``(h, w)`` float32 in [0, 1]; None where all are opaque.
    """

    db: float
    delta_e: float
    differences: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32] | None = None


def faithfulness(results: torch.Tensor, inputs: torch.Tensor) -> Iterator[Faithfulness]:
    """Compare results with what they were made of, one after the other.

    Args:
        results: ``(B, C, H, W)`` in [0, 1]; 1 channel is grey, the fourth of four is alpha.
        inputs: ``(B or 1, C, h, w)`` in [0, 1], likewise.

    Raises:
        PGPError: if they are not as many, or have other proportions.
    """
    if len(inputs) not in (1, len(results)):
        raise PGPError(f"{len(results)} results cannot be compared with {len(inputs)} inputs: give one, or as many")
    for i, result in enumerate(results):
        one, other = (x.movedim(0, -1).float().cpu().numpy() for x in (result, inputs[i if len(inputs) > 1 else 0]))
        yield compare(one, other)


def compare(result: npt.NDArray[Any], source: npt.NDArray[Any]) -> Faithfulness:
    """Compare a result with what it was made of.

    They are compared at the input's size; where a result is smaller, at its own.

    Args:
        result: ``(H, W, C)`` floats in [0, 1]; 1 channel is grey, the fourth of four is alpha.
        source: ``(h, w, C)``, likewise: the input. Its alpha says what is seen; if it has none, the result's.

    Raises:
        PGPError: if they have other proportions.
    """
    have, want = source.shape[:2], result.shape[:2]
    if not same_proportions(have, want, CELL):
        raise PGPError(
            f"the result is {want[1]} x {want[0]} pixels and the input {have[1]} x {have[0]}, which has other "
            "proportions: they cannot be compared"
        )
    height, width = (min(a, b) for a, b in zip(want, have, strict=True))
    one, other = _Reduced(result, width, height), _Reduced(source, width, height)
    weights = one.alpha if other.alpha is None else other.alpha
    differences = np.empty((height, width), np.float32)
    squares = colours = 0.0
    for start in range(0, height, STRIP):
        rows = slice(start, min(start + STRIP, height))
        a, b = one.rows(rows), other.rows(rows)
        found = delta_e(a, b)
        differences[rows] = found
        square = ((a - b) ** 2).mean(-1)
        if weights is not None:
            square, found = square * weights[rows], found * weights[rows]
        squares, colours = squares + float(square.sum()), colours + float(found.sum())
    count = float(height * width if weights is None else weights.sum(dtype=np.float64))
    # Where nothing is seen, nothing differs.
    error = squares / count if count else 0.0
    db = abs(10 * float(np.log10(min(1.0, max(error, 10 ** (-MOST / 10))))))
    return Faithfulness(db, colours / count if count else 0.0, differences, weights)


def describe(numbers: Sequence[tuple[float, float]]) -> str:
    """For people.

    Args:
        numbers: dB and mean CIEDE2000 of each picture.

    Returns:
        a line; of several pictures a line for all, and one for each.
    """
    lines = [f"{decibels(db)}, mean ΔE {colours:.1f}" for db, colours in numbers]
    if len(lines) == 1:
        return lines[0]
    low, high = (end(db for db, _ in numbers) for end in (min, max))
    db, colours = (sum(column) / len(numbers) for column in zip(*numbers, strict=True))
    whole = f"{len(lines)} pictures: {decibels(db)} ({low:.1f} to {high:.1f}), mean ΔE {colours:.1f}"
    return "\n".join([whole, *(f"{i}: {line}" for i, line in enumerate(lines, 1))])


def decibels(db: float) -> str:
    """A picture's, in words."""
    return "the same as its input" if db >= MOST else f"{db:.1f} dB faithful"


class _Reduced:
    """A picture at the size of the comparison, a few rows at a time.

    Args:
        picture: ``(H, W, C)``.
        width, height: at most the picture's.
    """

    def __init__(self, picture: npt.NDArray[Any], width: int, height: int):
        self.alpha: npt.NDArray[np.float32] | None = None
        if picture.shape[-1] == 4 and bool((picture[..., 3] < 1).any()):
            # What is seen is carried far, so this is done for the whole.
            picture = _transparent(picture, width, height)
            self.alpha = np.ascontiguousarray(picture[..., 3])
        self.picture, self.width, self.height = picture[..., :3], width, height

    def rows(self, rows: slice) -> npt.NDArray[np.float64]:
        """``(rows, width, 3)``."""
        full, across = self.picture.shape[:2]
        if (full, across) == (self.height, self.width):
            part = self.picture[rows].astype(np.float64)
        else:
            part = self._resampled(rows, full, across)
        return np.broadcast_to(part.clip(0, 1), (*part.shape[:2], 3))

    def _resampled(self, rows: slice, full: int, across: int) -> npt.NDArray[np.float64]:
        scale = full / self.height
        # Lanczos looks at three pixels of the coarser grid.
        reach = 3 * scale + 1
        first = max(0, int(rows.start * scale - reach))
        last = min(full, int(rows.stop * scale + reach) + 1)
        box = (0.0, rows.start * scale - first, float(across), rows.stop * scale - first)
        size = (self.width, rows.stop - rows.start)
        planes = []
        for plane in np.moveaxis(self.picture[first:last], -1, 0):
            image = Image.fromarray(np.ascontiguousarray(plane, np.float32), mode="F")
            planes.append(np.asarray(image.resize(size, Image.Resampling.LANCZOS, box)))
        return np.stack(planes, -1).astype(np.float64)


def _transparent(picture: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[np.float32]:
    """``(height, width, 4)``."""
    import torch

    from .resampling import enlarge

    pixels = torch.from_numpy(np.ascontiguousarray(picture, np.float32)).movedim(-1, 0)[None]
    return np.asarray(enlarge(pixels, width, height)[0].movedim(0, -1).numpy())
