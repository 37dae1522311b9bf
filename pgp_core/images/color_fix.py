"""Colour fix: the colours of the LQ picture for the restored one, after the authors' definitions.

``wavelet`` keeps the picture's detail and takes the rest from the reference: five levels of the kernel
``[1 2 1]/4`` along both axes, spread by 1, 2, 4, 8 and 16 pixels, edges repeated. ``adain`` gives each channel the
mean and standard deviation of the reference's (over the whole picture, variance unbiased plus 1e-5).

Of transparent pictures only what is seen counts: the reference's alpha weighs the differences that ``wavelet`` smooths
and the statistics of ``adain``. Where all is opaque that is the definition above, bit for bit.

Both work in strips of rows, so that little is held beside the pictures themselves. Results are the same, bit for
bit, whatever the strips' height: only additions and multiplications by powers of two depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..choices import COLOR_FIXES
from ..errors import PGPError
from .reference import check_reference
from .wrap import MARGIN, PLAIN, Wrap

_LEVELS = 5
#: Rows above and below that a row of the wavelet fix depends on.
_REACH = 2**_LEVELS - 1
#: Rows a strip, by default: 256 of an 8192 pixels wide picture are 25 MB in float32.
STRIP = 256
_STATISTICS_STRIP = 256
_EPSILON = 1e-5


def color_fix(
    pictures: torch.Tensor,
    reference: torch.Tensor,
    method: str = "wavelet",
    strip: int = STRIP,
    alpha: torch.Tensor | None = None,
    wrap: Wrap = PLAIN,
) -> torch.Tensor:
    """Give restored pictures the colours of the LQ pictures.

    Args:
        pictures: ``(B, C, H, W)`` in [0, 1], restored.
        reference: ``(B or 1, C, H, W)`` in [0, 1], the LQ pictures at the same size.
        method: one of :data:`pgp_core.choices.COLOR_FIXES`.
        strip: rows at a time.
        alpha: ``(B or 1, 1, H, W)`` in [0, 1] of the reference, if it has one.
        wrap: along which axes the pictures repeat, with their margins around; wider than the wavelet's reach, so only
            the statistics need to know.

    Returns:
        ``(B, C, H, W)`` float32 in [0, 1].

    Raises:
        PGPError: if the method is unknown or the sizes differ.
    """
    if method not in COLOR_FIXES:
        raise PGPError(f"there is no colour fix {method!r}; there are {', '.join(COLOR_FIXES)}")
    if method == "none":
        return pictures.float()
    check_reference(pictures, reference, alpha, "the colour fix")
    out = torch.empty(pictures.shape, dtype=torch.float32, device=pictures.device)
    for i, picture in enumerate(pictures):
        other = reference[i if len(reference) > 1 else 0].to(pictures.device)
        weights = None if alpha is None else alpha[i if len(alpha) > 1 else 0].to(picture.device)
        if method == "wavelet":
            fixed = _wavelet(picture, other, weights, strip)
        else:
            fixed = _adain(picture, other, weights, strip, wrap)
        for rows, values in fixed:
            torch.clamp(values, 0, 1, out=out[i, :, rows])
    return out


Strips = Iterator[tuple[slice, torch.Tensor]]


def _wavelet(picture: torch.Tensor, reference: torch.Tensor, alpha: torch.Tensor | None, strip: int) -> Strips:
    """``high(picture) + low(reference)``, computed as ``picture + low(reference - picture)``: low is linear."""
    height = picture.shape[-2]
    for start in range(0, height, strip):
        stop = min(start + strip, height)
        first, last = max(0, start - _REACH), min(height, stop + _REACH)
        rows = slice(first, last)
        low = reference[:, rows].float() - picture[:, rows].float()
        if alpha is None:
            low = _low(low)
        else:
            weights = alpha[:, rows].float()
            total = _low(weights)
            # Sums of what is not negative: nothing cancels, so this is a mean of differences however small it is.
            low = torch.where(total > 0, _low(torch.where(weights > 0, low * weights, 0)) / total, 0)
        yield slice(start, stop), picture[:, start:stop].float() + low[:, start - first : stop - first]


def _low(x: torch.Tensor) -> torch.Tensor:
    for level in range(_LEVELS):
        x = _blur(_blur(x, 2**level, -1), 2**level, -2)
    return x


def _blur(x: torch.Tensor, step: int, dim: int) -> torch.Tensor:
    """``[1 2 1]/4`` with taps ``step`` apart, edges repeated.

    Sums of slices, no convolution: those choose their algorithm by the size, and strips would differ from the
    whole in the last bit.
    """
    n = x.shape[dim]
    index = torch.arange(-step, n + step, device=x.device).clamp(0, n - 1)
    padded = x.index_select(dim, index)
    before, after = padded.narrow(dim, 0, n), padded.narrow(dim, 2 * step, n)
    return (before + after + 2 * x) * 0.25


def _adain(
    picture: torch.Tensor, reference: torch.Tensor, alpha: torch.Tensor | None, strip: int, wrap: Wrap
) -> Strips:
    seen = None if alpha is None else wrap.inner(alpha, MARGIN)
    mean, std = _statistics(wrap.inner(picture, MARGIN), seen)
    new_mean, new_std = _statistics(wrap.inner(reference, MARGIN), seen)
    for start in range(0, picture.shape[-2], strip):
        rows = slice(start, min(start + strip, picture.shape[-2]))
        yield rows, (picture[:, rows].float() - mean) / std * new_std + new_mean


def _statistics(picture: torch.Tensor, alpha: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation per channel, each ``(C, 1, 1)`` float32; summed in float64, always by the same
    strips."""
    wide = torch.float32 if picture.device.type == "mps" else torch.float64
    starts = range(0, picture.shape[-2], _STATISTICS_STRIP)
    strips = [picture[:, i : i + _STATISTICS_STRIP] for i in starts]
    weights: list[torch.Tensor | None] = [None for _ in starts]
    count = torch.tensor(picture.shape[-1] * picture.shape[-2], dtype=wide, device=picture.device)
    if alpha is not None and bool((alpha > 0).any()):
        weights = [alpha[:, i : i + _STATISTICS_STRIP].to(wide) for i in starts]
        count = alpha.to(wide).sum()
    nothing = torch.zeros(1, dtype=wide, device=picture.device)
    total = sum((_weighed(s.to(wide), w) for s, w in zip(strips, weights, strict=True)), nothing)
    mean = total / count
    squares = sum((_weighed((s.to(wide) - mean).square(), w) for s, w in zip(strips, weights, strict=True)), nothing)
    variance = squares / (count - 1).clamp(min=1)
    return mean.float(), (variance + _EPSILON).sqrt().float()


def _weighed(x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    if weights is not None:
        x = torch.where(weights > 0, x * weights, 0)
    return x.sum((1, 2), keepdim=True)
