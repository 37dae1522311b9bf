"""Transparent pictures: hidden colours stay hidden when the picture is enlarged.

A file holds some colour under what is transparent too: black, white, noise. Resampling and the model mix neighbouring
pixels, so that colour would show as a rim. Here the visible colours are carried under the transparent part first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .wrap import PLAIN, Wrap


def bleed(pictures: torch.Tensor, white: int = 255) -> torch.Tensor:
    """Carry the visible colours under the transparent part.

    Opaque pixels keep their colours exactly. Those half transparent move towards their neighbours' by as much as
    rounding hides of them where a program had multiplied them by alpha: half a level of what is seen. Those under
    alpha 0 get what a pyramid of means, weighed by alpha, says of their surroundings. A picture without anything
    visible stays as it is.

    Args:
        pictures: ``(B, 4, H, W)`` RGB and alpha in [0, 1], colours not multiplied by alpha.
        white: the largest level of the file that they are from.

    Returns:
        ``(B, 4, H, W)`` float32; the pictures themselves where all is opaque.
    """
    pictures = pictures.float()
    alpha = pictures[:, 3:].clamp(0, 1)
    if bool((alpha == 1).all()):
        return pictures
    # where, not a product: nothing times NaN is NaN.
    colours = torch.where(alpha > 0, pictures[:, :3], 0)
    filled = _pull(colours, alpha)
    reach = (0.5 / alpha.clamp(min=1e-6) + 0.5) / white
    near = torch.minimum(torch.maximum(filled, colours - reach), colours + reach).clamp(0, 1)
    colours = torch.where(alpha == 1, colours, torch.where(alpha > 0, near, filled))
    seen = (alpha > 0).flatten(1).any(1)[:, None, None, None]
    return torch.cat([torch.where(seen, colours, pictures[:, :3]), pictures[:, 3:]], 1)


def _pull(colours: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """For each pixel the mean of its surroundings, as small as they may be to have something visible."""
    height, width = colours.shape[-2:]
    if height == width == 1:
        return colours
    # Beyond the border there is nothing: weight 0.
    padding = (0, width % 2, 0, height % 2)
    sums = F.avg_pool2d(F.pad(colours * weights, padding), 2)
    total = F.avg_pool2d(F.pad(weights, padding), 2)
    means = torch.where(total > 0, sums / total.clamp(min=1e-12), 0)
    # A quarter of a block that is opaque says enough of it.
    known = (4 * total).clamp(max=1)
    coarse = known * means + (1 - known) * _pull(means, known)
    enlarged = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    return enlarged[..., :height, :width]


def without_ringing(alpha: torch.Tensor, enlarged: torch.Tensor, wrap: Wrap = PLAIN) -> torch.Tensor:
    """An enlarged alpha, kept between the nearest pixels of the one that it was made from.

    Lanczos rings beside edges, which alpha has more of than pictures: faint outlines would appear around shapes, and
    holes in them.

    Args:
        alpha: ``(B, 1, H, W)``.
        enlarged: ``(B, 1, height, width)``, from a resampling whose pixels' centres lie as usual.
        wrap: along which axes they repeat.

    Returns:
        as ``enlarged``; unchanged if it is smaller along an axis.
    """
    if any(n < m for n, m in zip(enlarged.shape[-2:], alpha.shape[-2:], strict=True)):
        return enlarged
    across, down = (0 if dim in wrap.dims else 1 for dim in (-1, -2))
    around = F.pad(wrap.around(alpha.float(), 1), (across, across, down, down), mode="replicate")
    low, high = -F.max_pool2d(-around, 2, 1), F.max_pool2d(around, 2, 1)
    for dim in (-2, -1):
        n, m = alpha.shape[dim], enlarged.shape[dim]
        # The pair of pixels that a result's centre lies between; in whole numbers, as centres may be pixels' own.
        pair = torch.div((2 * torch.arange(m, device=alpha.device) + 1) * n + m, 2 * m, rounding_mode="floor")
        low, high = low.index_select(dim, pair), high.index_select(dim, pair)
    return torch.minimum(torch.maximum(enlarged, low), high)
