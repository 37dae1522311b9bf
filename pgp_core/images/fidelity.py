"""The dial of fidelity: from what size of detail upwards a result follows its input.

``x + G(LQ - x)``, where LQ is the input at the result's size and G a Gaussian of ``sigma`` pixels of the result: what
is coarser than that comes from the input, what is finer stays as it was made. So the smaller sigma, the more faithful
the result, and 0 is off.

It comes after the colour fix. The wavelet one is the same with a sigma of about 13, so below that the dial alone
decides, and far above it nothing is left to do; what AdaIN gives each channel is put right where it is coarse, and
kept where it is fine.

A picture goes on beyond its borders mirrored, so that its mean comes from the input however large sigma is. Of
transparent pictures only what is seen counts: the reference's alpha weighs the differences. It works in strips of
rows; results are the same, bit for bit, whatever their height.
"""

from __future__ import annotations

import torch

from ..choices import MAX_FIDELITY
from ..errors import PGPError
from ..number import number
from .gaussian import STRIP, Rows, smoothed
from .reference import check_reference
from .wrap import MARGIN, PLAIN, Wrap


def check_fidelity(sigma: float, who: str = "the fidelity is") -> None:
    """Raises:
    PGPError: if the dial has no such position.
    """
    number(sigma, who, 0, MAX_FIDELITY, unit="pixels (0 is off)")


def follow(
    pictures: torch.Tensor,
    reference: torch.Tensor,
    sigma: float,
    strip: int = STRIP,
    alpha: torch.Tensor | None = None,
    wrap: Wrap = PLAIN,
) -> torch.Tensor:
    """Let restored pictures follow the LQ pictures in what is coarser than some pixels.

    Args:
        pictures: ``(B, C, H, W)`` in [0, 1], restored.
        reference: ``(B or 1, C, H, W)`` in [0, 1], the LQ pictures at the same size.
        sigma: standard deviation of the Gaussian in pixels; 0 changes nothing. If it is larger than the picture, the
            mean alone comes from the reference.
        strip: rows at a time.
        alpha: ``(B or 1, 1, H, W)`` in [0, 1] of the reference, if it has one.
        wrap: along which axes the pictures repeat, with their margins around.

    Returns:
        ``(B, C, H, W)`` float32 in [0, 1]; the pictures themselves with ``sigma`` 0.

    Raises:
        PGPError: if the number is out of its range or the sizes differ.
    """
    check_fidelity(sigma)
    if sigma == 0:
        return pictures.float()
    check_reference(pictures, reference, alpha, "fidelity")
    if any(pictures.shape[dim] <= 2 * MARGIN for dim in wrap.dims):
        raise PGPError(
            f"fidelity needs pictures with margins of {MARGIN} pixels where they repeat, and these are "
            f"{pictures.shape[-1]}x{pictures.shape[-2]}: connect the canvas that was made with the same wrap"
        )
    # A Gaussian may be wider than the margins, which are made anew of what repeats.
    pictures, reference = wrap.inner(pictures, MARGIN), wrap.inner(reference, MARGIN)
    alpha = None if alpha is None else wrap.inner(alpha, MARGIN)
    out = torch.empty(pictures.shape, dtype=torch.float32, device=pictures.device)
    for i, picture in enumerate(pictures):
        other = reference[i if len(reference) > 1 else 0].to(picture.device)
        weights = None if alpha is None else alpha[i if len(alpha) > 1 else 0].to(picture.device)
        height, width = picture.shape[-2:]
        for rows, low in smoothed(_difference(picture, other, weights), height, width, sigma, wrap, strip):
            if weights is not None:
                # Sums of what is not negative: a mean of differences however small they are.
                low, total = low[:-1], low[-1:]
                low = torch.where(total > 0, low / total, 0)
            torch.clamp(picture[:, rows].float() + low, 0, 1, out=out[i, :, rows])
    return wrap.around(out, MARGIN)


def _difference(picture: torch.Tensor, reference: torch.Tensor, alpha: torch.Tensor | None) -> Rows:
    """``reference - picture``; weighed by alpha, which then is the last channel."""

    def rows(index: torch.Tensor) -> torch.Tensor:
        index = index.to(picture.device)
        difference = reference.index_select(1, index).float() - picture.index_select(1, index).float()
        if alpha is None:
            return difference
        weights = alpha.index_select(1, index).float()
        # where, not a product: nothing times NaN is NaN.
        return torch.cat([torch.where(weights > 0, difference * weights, 0), weights])

    return rows
