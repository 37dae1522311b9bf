"""How much there is to restore at each place of a picture: a map that tells easy tiles from hard ones.

PatchScaler (Liu et al., 2024) learns such a map; its network was never released. This one is measured: how strong the
fine detail of the LQ canvas is, less where that detail is out of focus.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

#: Pixels along a side for which the map has one value.
CELL = 8
#: Standard deviations, in pixels, of the two Gaussians whose remainder is detail. On canvases of six photographs the
#: wide one at 3 ranks tiles as what the HQ picture has more does (rank correlation 0.87; at 6: 0.84, at 10: 0.80).
_FINE, _WIDE = 1.0, 3.0
#: By how much what is out of focus counts less; there, without it, 0.87 at 3 and 0.81 at 6.
_BLUR = 0.5
#: Detail in units of luma: below the first there is nothing but noise and rounding, and a picture that nowhere has
#: more than the second is not stretched to it.
_NOTHING, _VISIBLE = 2 / 255, 8 / 255
#: Percentiles between which a picture's own values are spread.
_LOW, _HIGH = 0.05, 0.95
#: Rows that are looked at together, so that a picture of 8192 x 8192 takes some tens of megabytes.
_ROWS = 64 * CELL


def difficulty(canvas: torch.Tensor) -> torch.Tensor:
    """The map of each picture of a batch.

    ``d = s (1 - b / 2)``: ``s`` is the local standard deviation of high-passed luma between two robust percentiles of
    the picture, ``b`` how little of it is fine compared with what is fine in the picture's sharpest places. A picture
    that is as hard everywhere is hard everywhere, a flat one is easy everywhere.

    Args:
        canvas: ``(B, 3, H, W)`` RGB in [0, 1], any size; the LQ picture at its final size.

    Returns:
        ``(B, 1, ceil(H / 8), ceil(W / 8))`` float32 in [0, 1] on the CPU, 1 the hardest.
    """
    return torch.stack([_of(picture[None]) for picture in canvas])


def _of(picture: torch.Tensor) -> torch.Tensor:
    """The map of one picture, ``(1, h, w)``."""
    fine, wide = (_around(power)[0].sqrt() for power in _powers(picture))
    low = min(_percentile(wide, _LOW), _NOTHING)
    strength = ((wide - low) / (max(_percentile(wide, _HIGH), _VISIBLE) - low)).clamp(0, 1)
    share = fine / wide.clamp_min(_NOTHING)
    there = share[wide >= _VISIBLE]
    sharpest = _percentile(there, _HIGH) if there.numel() else 1.0
    blur = 1 - (share / max(sharpest, 1e-6)).clamp(0, 1)
    return strength * (1 - _BLUR * blur)


def _powers(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean square of what is finer than each Gaussian, ``(1, 1, h, w)`` in cells."""
    kernels = [_gaussian(s) for s in (_FINE, _WIDE)]
    halo = max(len(k) // 2 for k in kernels)
    height = picture.shape[-2]
    found: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for top in range(0, height, _ROWS):
        bottom = min(top + _ROWS, height)
        above, below = min(halo, top), min(halo, height - bottom)
        rows = _luma(picture[..., top - above : bottom + below, :])
        padded = F.pad(rows, (halo, halo, halo - above, halo - below), mode="replicate")
        inner = padded[..., halo:-halo, halo:-halo]
        for kernel, powers in zip(kernels, found, strict=True):
            cut = halo - len(kernel) // 2
            around = padded[..., cut : padded.shape[-2] - cut, cut : padded.shape[-1] - cut]
            smooth = F.conv2d(F.conv2d(around, kernel[None, None, :, None]), kernel[None, None, None, :])
            # Cells at the right and lower border may be smaller.
            powers.append(F.avg_pool2d((inner - smooth).square(), CELL, ceil_mode=True))
    return torch.cat(found[0], -2), torch.cat(found[1], -2)


def _luma(rgb: torch.Tensor) -> torch.Tensor:
    """``(1, 1, H, W)`` float32 of ``(1, 3, H, W)``; what is no number is black."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (rgb.detach().cpu().float().nan_to_num(0).clamp(0, 1) * weights).sum(1, keepdim=True)


def _gaussian(sigma: float) -> torch.Tensor:
    at = torch.arange(-round(3 * sigma), round(3 * sigma) + 1, dtype=torch.float64)
    weights = torch.exp(-((at / sigma) ** 2) / 2)
    return (weights / weights.sum()).float()


def _around(x: torch.Tensor) -> torch.Tensor:
    """Mean over a cell and its neighbours."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


def _percentile(x: torch.Tensor, share: float) -> float:
    """The value below which ``share`` of all values lie; :func:`torch.quantile` takes no large pictures."""
    flat = x.flatten()
    return float(flat.kthvalue(1 + round(share * (flat.numel() - 1))).values)
