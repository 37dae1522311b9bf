"""From a picture to the LQ canvas that the model works on, and back to the exact size."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..errors import PGPError
from ..memory import with_swap
from .frames import Frame
from .resampling import coarse, enlarge, resample
from .sizes import Size
from .wrap import MARGIN, PLAIN, Wrap, whole

#: Canvases in float32 that a picture takes at least, whatever the model: LQ, its features, result, result with its
#: colours put right.
_COPIES = 4


def pad(rgb: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad ``(B, C, H, W)`` at the right and lower border to multiples: reflection where the picture is
    large enough, repetition of the edge where it is not. Crop with ``[..., :H, :W]``."""
    height, width = rgb.shape[-2:]
    for axis, size in ((0, width), (1, height)):
        extra = -size % multiple
        if extra:
            amounts = (0, extra, 0, 0) if axis == 0 else (0, 0, 0, extra)
            rgb = F.pad(rgb, amounts, mode="reflect" if extra < size else "replicate")
    return rgb


def frame(rgb: torch.Tensor, multiple: int, border: int = 0, dims: tuple[int, ...] = (-1, -2)) -> torch.Tensor:
    """Pad ``(B, C, H, W)`` on all sides by at least ``border``, to multiples; :func:`crop` is the way back.

    Reflection where the picture is large enough, repetition of the edge where it is not.

    Args:
        dims: the axes that get it.
    """
    for dim in dims:
        size = rgb.shape[dim]
        extra = -(-(size + 2 * border) // multiple) * multiple - size
        before, after = extra // 2, extra - extra // 2
        if extra:
            amounts = (before, after, 0, 0) if dim == -1 else (0, 0, before, after)
            rgb = F.pad(rgb, amounts, mode="reflect" if after < size else "replicate")
    return rgb


def crop(pictures: torch.Tensor, width: int, height: int, enlarges: int = 1) -> torch.Tensor:
    """What :func:`frame` put a frame around: the middle of ``(B, C, H, W)``; a view.

    Args:
        enlarges: how many times the pictures are as large as what the frame was put around.

    Raises:
        PGPError: if the pictures are smaller.
    """
    top, left = (
        enlarges * ((n // enlarges - _cells(m, enlarges)) // 2) + _spare(m, enlarges) // 2
        for n, m in zip(pictures.shape[-2:], (height, width), strict=True)
    )
    if min(top, left) < 0:
        raise PGPError(f"{pictures.shape[-1]}x{pictures.shape[-2]} pixels cannot be cropped to {width}x{height}")
    return pictures[..., top : top + height, left : left + width]


def _cells(size: int, enlarges: int) -> int:
    """Pixels of a canvas that a result of this size is made of."""
    return -(-size // enlarges)


def _spare(size: int, enlarges: int) -> int:
    """Pixels by which what is made of these is larger than the result; half of them, rounded down, lie before it."""
    return enlarges * _cells(size, enlarges) - size


def canvas(pictures: torch.Tensor, size: Size, around: Frame, wrap: Wrap = PLAIN) -> tuple[torch.Tensor, int, int]:
    """Enlarge pictures to the size that a model takes and put the frame around them that it needs.

    That size is the result's, or for a model that enlarges as much smaller, rounded up. The picture lies in it so that
    every pixel of the result is where it belongs, whether or not the result's sides are multiples of what the model
    enlarges by; the part of a pixel that is left at an end is mirrored.

    Args:
        pictures: ``(B, C, H, W)`` in [0, 1], see :func:`enlarge`.
        around: what the model needs.
        wrap: along which axes they repeat: there the frame is a margin of :data:`.wrap.MARGIN` from the opposite side,
            around as many pixels as a model can repeat, up to 31 more than the result has.

    Returns:
        the canvas, ``(B, C, ...)`` float32 in [0, 1], and the width and height for :func:`uncanvas`. For a model that
        enlarges it has no alpha: what is seen is carried under what is transparent, and alpha has the result's size.

    Raises:
        PGPError: see :meth:`.sizes.Size.of`; if this machine's memory cannot hold what is to be done.
    """
    width, height = size.of(pictures.shape[-1], pictures.shape[-2])
    _check_memory(len(pictures), width, height)
    across, down = _sides(width, height, wrap, around.enlarges)
    if around.enlarges == 1:
        enlarged = enlarge(pictures, across, down, wrap)
    else:
        spare = [0 if dim in wrap.dims else _spare(n, around.enlarges) for n, dim in ((width, -1), (height, -2))]
        enlarged = coarse(pictures, across, down, around.enlarges, (spare[0], spare[1]), wrap)
    enlarged = wrap.around(enlarged, MARGIN)
    others = tuple(dim for dim in (-1, -2) if dim not in wrap.dims)
    return frame(enlarged, around.multiple, around.border, others), width, height


def _sides(width: int, height: int, wrap: Wrap, enlarges: int) -> tuple[int, int]:
    """Width and height of what a canvas has within its frame."""
    across, down = (_cells(n, enlarges) for n in (width, height))
    return (whole(across) if -1 in wrap.dims else across), (whole(down) if -2 in wrap.dims else down)


def uncanvas(pictures: torch.Tensor, width: int, height: int, wrap: Wrap = PLAIN, enlarges: int = 1) -> torch.Tensor:
    """The result within the frame of :func:`canvas`, of its exact size; mostly a view.

    Args:
        pictures: ``(B, C, H, W)`` in [0, 1].
        enlarges: how many times they are as large as the canvas that they were made of.

    Raises:
        PGPError: if the pictures are smaller, or have no margins where they should repeat.
    """
    if not wrap:
        return crop(pictures, width, height, enlarges)
    sides = _sides(width, height, wrap, enlarges)
    across, down = (
        enlarges * side if dim in wrap.dims else n
        for side, n, dim in zip(sides, (width, height), (-1, -2), strict=True)
    )
    for dim, size in ((-1, across), (-2, down)):
        if dim in wrap.dims and pictures.shape[dim] != size + 2 * MARGIN * enlarges:
            raise PGPError(
                f"a picture that repeats and is cropped to {width}x{height} has {size + 2 * MARGIN * enlarges} pixels "
                f"with its margins, not {pictures.shape[dim]}: connect the canvas that was made with the same wrap"
            )
    inner = crop(pictures, across, down, enlarges)
    return inner if (across, down) == (width, height) else resample(inner, width, height, wrap)


def _check_memory(count: int, width: int, height: int) -> None:
    """Linux ends a process that takes more than there is, without a word; so say it before."""
    need, free = count * width * height * 3 * 4 * _COPIES, with_swap()
    if free is not None and need > free:
        pictures = f"{width}x{height}" if count == 1 else f"{count} pictures of {width}x{height}"
        raise PGPError(
            f"{pictures} take {need / 2**30:.1f} GB of memory at least, and {free / 2**30:.1f} GB are free: choose a "
            f"smaller result{', or fewer pictures at a time' if count > 1 else ''}"
        )
