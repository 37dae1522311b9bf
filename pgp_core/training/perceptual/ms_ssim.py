"""MS-SSIM as a loss (Wang, Simoncelli and Bovik, 2003), on as many of its five scales as a crop has room for."""

from __future__ import annotations

import torch
import torch.nn.functional as F

#: How much each scale counts, fine to coarse, and how large the window is.
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
#: A scale's similarity can be negative, where no power of it exists; at 0 the power's gradient is infinite.
_LEAST = 1e-3


def ms_ssim(result: torch.Tensor, hq: torch.Tensor) -> torch.Tensor:
    """``1 - MS-SSIM``, the mean of the three colours.

    The full five scales take 176 pixels along the shorter side; with fewer, the coarsest are left out and the
    weights of the others sum to 1 again. A side of under 11 pixels gets a window that fits.

    Args:
        result, hq: ``(B, 3, H, W)`` float32 in [0, 1].

    Returns:
        ``(B,)`` in [0, 1].
    """
    side = min(result.shape[-2:])
    scales = max(1, sum(side >> i >= WINDOW for i in range(len(WEIGHTS))))
    weights = [w / sum(WEIGHTS[:scales]) for w in WEIGHTS[:scales]]
    window = _gaussian(min(WINDOW, side - 1 + side % 2), result)
    product = torch.ones_like(result[:, :, 0, 0])
    for scale, weight in enumerate(weights):
        luminance, contrast = _similarities(result, hq, window)
        last = scale == scales - 1
        value = (luminance * contrast if last else contrast).mean((2, 3))
        product = product * value.clamp(min=_LEAST) ** weight
        if not last:
            result, hq = F.avg_pool2d(result, 2), F.avg_pool2d(hq, 2)
    return 1 - product.mean(1)


def _similarities(x: torch.Tensor, y: torch.Tensor, window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SSIM's luminance, and its contrast times structure, at each position where the window lies inside."""
    mean_x, mean_y = _blur(x, window), _blur(y, window)
    var_x, var_y = _blur(x * x, window) - mean_x**2, _blur(y * y, window) - mean_y**2
    covariance = _blur(x * y, window) - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (var_x + var_y + c2)


def _gaussian(size: int, like: torch.Tensor) -> torch.Tensor:
    at = torch.arange(size, device=like.device, dtype=like.dtype) - size // 2
    weights = torch.exp(-(at**2) / (2 * SIGMA**2))
    return weights / weights.sum()


def _blur(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    channels, n = x.shape[1], len(window)
    x = F.conv2d(x, window.view(1, 1, n, 1).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(x, window.view(1, 1, 1, n).repeat(channels, 1, 1, 1), groups=channels)
