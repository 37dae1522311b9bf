"""A difficulty map to look at."""

from __future__ import annotations

import torch
import torch.nn.functional as F

#: Easy, medium, hard.
_COLOURS = ((0.13, 0.35, 0.80), (0.95, 0.85, 0.25), (0.85, 0.10, 0.10))
_SHARE = 0.55


def heat(canvas: torch.Tensor, difficulty: torch.Tensor, longest: int = 1024) -> torch.Tensor:
    """Difficulty as colours, blue to yellow to red, over the picture in grey.

    Args:
        canvas: ``(B, 3, H, W)`` in [0, 1].
        difficulty: ``(B, 1, h, w)`` in [0, 1].
        longest: pixels that the longer side has at most.

    Returns:
        ``(B, 3, ...)`` float32 in [0, 1] on the CPU, in the canvas's proportions.
    """
    height, width = canvas.shape[-2:]
    scale = min(1.0, longest / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = [F.interpolate(p[None].cpu().float(), size, mode="area") for p in canvas]
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    grey = (torch.cat(small).nan_to_num(0).clamp(0, 1) * weights).sum(1, keepdim=True)
    at = F.interpolate(difficulty.float(), size, mode="bilinear", align_corners=False).clamp(0, 1) * 2
    low, middle, high = (torch.tensor(c).view(1, 3, 1, 1) for c in _COLOURS)
    colour = torch.where(at < 1, torch.lerp(low, middle, at), torch.lerp(middle, high, at - 1))
    return torch.lerp(grey.expand_as(colour), colour, _SHARE)
