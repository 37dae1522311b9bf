"""HaarPSI as a loss: :func:`pgp_core.evaluation.metrics.haarpsi` in PyTorch, for batches, with a gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F

#: The authors' settings.
C, ALPHA = 30.0, 4.2

#: Rows are Y, I and Q of NTSC's colours.
YIQ = ((0.299, 0.587, 0.114), (0.59590059, -0.27455667, -0.32134392), (0.21153661, -0.52273617, 0.31119955))


def haarpsi(result: torch.Tensor, hq: torch.Tensor) -> torch.Tensor:
    """``1 - HaarPSI``.

    Args:
        result, hq: ``(B, 3, H, W)`` float32 in [0, 1].

    Returns:
        ``(B,)`` in [0, 1].
    """
    x, y = (_halve(255 * _yiq(picture)) for picture in (result, hq))
    similarities, weights = [], []
    for axis in (2, 3):
        fine = [_similarity(_haar(x[:, :1], s, axis), _haar(y[:, :1], s, axis)) for s in (2, 4)]
        similarities.append((fine[0] + fine[1]) / 2)
        weights.append(torch.maximum(_haar(x[:, :1], 8, axis), _haar(y[:, :1], 8, axis)))
    chroma = _similarity(_average(x[:, 1:]).abs(), _average(y[:, 1:]).abs())
    similarities.append(chroma.mean(1, keepdim=True))
    weights.append((weights[0] + weights[1]) / 2)
    s, w = torch.cat(similarities, 1).flatten(1), torch.cat(weights, 1).flatten(1)
    # Two black pictures have no weight anywhere; then every position counts alike.
    w = w + (w.sum(1, keepdim=True) == 0).to(w)
    mean = (w * torch.sigmoid(ALPHA * s)).sum(1) / w.sum(1)
    return 1 - (torch.logit(mean) / ALPHA) ** 2


def _yiq(rgb: torch.Tensor) -> torch.Tensor:
    return torch.einsum("oc,bchw->bohw", torch.tensor(YIQ, device=rgb.device, dtype=rgb.dtype), rgb)


def _similarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (2 * a * b + C) / (a**2 + b**2 + C)


def _average(picture: torch.Tensor) -> torch.Tensor:
    return _along(_along(picture, [0.5, 0.5], 2), [0.5, 0.5], 3)


def _halve(picture: torch.Tensor) -> torch.Tensor:
    return _average(picture)[..., ::2, ::2]


def _haar(picture: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    half = [1.0] * (size // 2)
    difference = _along(picture, half + [-h for h in half], axis)
    return _along(difference, [1.0 / size] * size, 5 - axis).abs()


def _along(picture: torch.Tensor, weights: list[float], axis: int) -> torch.Tensor:
    """Correlate along an axis with an even number of weights; zeros outside, one more pixel after than before."""
    n = len(weights)
    before, after = n // 2 - 1, n // 2
    kernel = torch.tensor(weights, device=picture.device, dtype=picture.dtype)
    shape, padding = ((n, 1), (0, 0, before, after)) if axis == 2 else ((1, n), (before, after, 0, 0))
    channels = picture.shape[1]
    return F.conv2d(F.pad(picture, padding), kernel.view(1, 1, *shape).repeat(channels, 1, 1, 1), groups=channels)
