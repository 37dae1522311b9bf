"""From a picture to the LQ canvas that the model works on, and back to the exact size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..errors import PGPError
from ..memory import with_swap
from .frames import Frame
from .sizes import Size
from .transparency import bleed, without_ringing
from .wrap import MARGIN, PLAIN, Wrap, whole

#: Canvases in float32 that a picture takes at least, whatever the model: LQ, its features, result, result with its
#: colours put right.
_COPIES = 4


def resize(image: Image.Image, width: int, height: int, box: tuple[int, int, int, int] | None = None) -> Image.Image:
    """Lanczos, in 8 bits a channel, which is also what ComfyUI's "lanczos" does; of a part of the picture, which sees
    what is around it, where there is a box."""
    return image.resize((width, height), Image.Resampling.LANCZOS, box)


def resample(pictures: torch.Tensor, width: int, height: int, wrap: Wrap = PLAIN) -> torch.Tensor:
    """Lanczos in float32, for canvases.

    Args:
        pictures: ``(B, C, H, W)`` in [0, 1].
        wrap: along which axes they repeat.

    Returns:
        ``(B, C, height, width)`` float32 in [0, 1] on the same device.
    """
    if pictures.shape[-2:] == (height, width):
        return pictures.float()
    out = torch.empty(*pictures.shape[:2], height, width)
    box = None
    if wrap:
        across, down = pictures.shape[-1], pictures.shape[-2]
        # Lanczos looks at three pixels of the coarser grid.
        reach = 4 * max(1, -(-across // width), -(-down // height))
        left, top = (reach if dim in wrap.dims else 0 for dim in (-1, -2))
        box = (left, top, left + across, top + down)
        pictures = wrap.around(pictures, reach)
    for picture, target in zip(pictures, out, strict=True):
        for plane, place in zip(picture, target, strict=True):
            image = Image.fromarray(plane.float().cpu().numpy(), mode="F")
            place.copy_(torch.from_numpy(np.array(resize(image, width, height, box))))
    return out.clamp_(0, 1).to(pictures.device)


def enlarge(pictures: torch.Tensor, width: int, height: int, wrap: Wrap = PLAIN) -> torch.Tensor:
    """:func:`resample` for pictures that may have an alpha channel.

    The visible colours are carried under what is transparent first, so that none that was hidden comes into view.

    Args:
        pictures: ``(B, C, H, W)`` in [0, 1]; the fourth of four channels is alpha, which no colour is multiplied by.
        wrap: along which axes they repeat.

    Returns:
        ``(B, C, height, width)`` float32 in [0, 1] on the same device.
    """
    if pictures.shape[1] != 4:
        return resample(pictures, width, height, wrap)
    around = min(pictures.shape[-2:])
    seen = wrap.inner(bleed(wrap.around(pictures, around)), around)
    large = resample(seen, width, height, wrap)
    return torch.cat([large[:, :3], without_ringing(pictures[:, 3:], large[:, 3:], wrap)], 1)


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


def crop(pictures: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """What :func:`frame` put a frame around: the middle of ``(B, C, H, W)``; a view.

    Raises:
        PGPError: if the pictures are smaller.
    """
    top, left = ((n - m) // 2 for n, m in zip(pictures.shape[-2:], (height, width), strict=True))
    if min(top, left) < 0:
        raise PGPError(f"{pictures.shape[-1]}x{pictures.shape[-2]} pixels cannot be cropped to {width}x{height}")
    return pictures[..., top : top + height, left : left + width]


def same_proportions(have: Sequence[int], want: Sequence[int], rounding: int) -> bool:
    """Whether one scale takes a picture to another size, whose sides may be off by less than ``rounding`` pixels.

    Args:
        have, want: height and width.
    """
    scales = [((w - rounding) / h, (w + rounding) / h) for h, w in zip(have, want, strict=True)]
    return max(low for low, _ in scales) < min(high for _, high in scales)


def canvas(pictures: torch.Tensor, size: Size, around: Frame, wrap: Wrap = PLAIN) -> tuple[torch.Tensor, int, int]:
    """Enlarge pictures to their final size and put the frame around them that a model needs.

    Args:
        pictures: ``(B, C, H, W)`` in [0, 1], see :func:`enlarge`.
        around: what the model needs.
        wrap: along which axes they repeat: there the frame is a margin of :data:`.wrap.MARGIN` from the opposite side,
            around as many pixels as a model can repeat, up to 31 more than the result has.

    Returns:
        the canvas, ``(B, C, ...)`` float32 in [0, 1], and the width and height for :func:`uncanvas`.

    Raises:
        PGPError: see :meth:`.sizes.Size.of`; if this machine's memory cannot hold what is to be done.
    """
    width, height = size.of(pictures.shape[-1], pictures.shape[-2])
    _check_memory(len(pictures), width, height)
    across, down = (whole(n) if dim in wrap.dims else n for n, dim in ((width, -1), (height, -2)))
    enlarged = wrap.around(enlarge(pictures, across, down, wrap), MARGIN)
    others = tuple(dim for dim in (-1, -2) if dim not in wrap.dims)
    return frame(enlarged, around.multiple, around.border, others), width, height


def uncanvas(pictures: torch.Tensor, width: int, height: int, wrap: Wrap = PLAIN) -> torch.Tensor:
    """The result within the frame of :func:`canvas`, of its exact size; mostly a view.

    Args:
        pictures: ``(B, C, H, W)`` in [0, 1].

    Raises:
        PGPError: if the pictures are smaller, or have no margins where they should repeat.
    """
    if not wrap:
        return crop(pictures, width, height)
    across, down = (whole(n) if dim in wrap.dims else n for n, dim in ((width, -1), (height, -2)))
    for dim, size in ((-1, across), (-2, down)):
        if dim in wrap.dims and pictures.shape[dim] != size + 2 * MARGIN:
            raise PGPError(
                f"a picture that repeats and is cropped to {width}x{height} has {size + 2 * MARGIN} pixels with its "
                f"margins, not {pictures.shape[dim]}: connect the canvas that was made with the same wrap"
            )
    inner = crop(pictures, across, down)
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
