"""A map of where a result departs from its input, and by how much, to look at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from .faithfulness import Faithfulness
from .gaussian import smoothed
from .resampling import enlarge

#: Pixels of the longer side: small pictures are enlarged so that the scale can be read, large ones made smaller.
LEAST, MOST = 512, 2048
#: Pixels of the comparison that regions are about as large as, in parts of the longer side; 1 at least.
_REGION = 1 / 128
#: CIEDE2000 at both ends of the scale, the same for every map, so that two can be compared. Below the first next to
#: nothing is to be seen even side by side.
_FROM, _TO = 2.0, 15.0
#: matplotlib's "inferno" from a third of its way on, in equal steps: lighter is always more.
_COLOURS = (
    (0.58, 0.15, 0.40),
    (0.74, 0.21, 0.33),
    (0.87, 0.32, 0.23),
    (0.96, 0.47, 0.10),
    (0.99, 0.65, 0.04),
    (0.97, 0.85, 0.28),
    (0.99, 1.00, 0.64),
)
#: How light the picture in grey is at most, so that colours stand out, and how much of a colour covers it.
_DIM, _COVER = 0.65, 0.9
#: From where to where a colour comes to cover it.
_FADES = 1.5, 7.0
_MARKS = (2, 5, 10, 15)
_LUMA = (0.299, 0.587, 0.114)


def departures(picture: torch.Tensor, found: Faithfulness) -> torch.Tensor:
    """Draw the map: departures in colour over the picture in dim grey, a scale of CIEDE2000 beneath.

    Differences are averaged over small regions, as single pixels of two pictures always differ. The map has the
    result's proportions, but for the scale, and its size between 512 and 2048 pixels of the longer side.

    Args:
        picture: ``(C, H, W)`` in [0, 1], the result; 1 channel is grey, the fourth of four is alpha.
        found: what was found of it.

    Returns:
        ``(3, H', W')`` float32 in [0, 1] on the CPU; the height is the same for all pictures of a size.
    """
    height, width = picture.shape[-2:]
    scale = min(max(1.0, LEAST / max(height, width)), MOST / max(height, width))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    drawn = _drawn(_grey(picture, width, height), _regions(found, width, height))
    pixels = np.asarray(_scale(width))
    return torch.cat([drawn, torch.from_numpy(pixels.copy()).movedim(-1, 0).float() / 255], 1)


def _grey(picture: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """``(height, width)``, what is transparent black."""
    small = enlarge(picture[None].float().cpu(), width, height)[0]
    if small.shape[0] == 1:
        return small[0]
    grey = sum((weight * plane for weight, plane in zip(_LUMA, small[:3], strict=True)), torch.zeros(1))
    return grey * small[3] if small.shape[0] == 4 else grey


def _regions(found: Faithfulness, width: int, height: int) -> torch.Tensor:
    """``(height, width)``: mean CIEDE2000 around each pixel, 0 where nothing is seen."""
    differences = torch.from_numpy(found.differences)
    seen = torch.ones_like(differences) if found.weights is None else torch.from_numpy(found.weights)
    # Beside the sums, how many: what is transparent says nothing.
    both = torch.stack([differences * seen, seen])
    sigma = max(1.0, _REGION * max(differences.shape))
    strips = [x for _, x in smoothed(lambda rows: both[:, rows], len(differences), differences.shape[1], sigma)]
    total, count = torch.cat(strips, 1)
    mean = torch.where(seen > 0, total / count.clamp(min=1e-6), 0)
    size = (height, width)
    return torch.nn.functional.interpolate(mean[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def _drawn(grey: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    """``(3, H, W)``: more colour, and a lighter one, the more there is."""
    low, high = _FADES
    cover = ((amount - low) / (high - low)).clamp(0, 1) * _COVER
    return torch.lerp((_DIM * grey).expand(3, -1, -1), _colour((amount - _FROM) / (_TO - _FROM)), cover)


def _colour(at: torch.Tensor) -> torch.Tensor:
    """``(3, ...)`` of positions on the scale, 0 to 1."""
    colours = torch.tensor(_COLOURS).T
    position = at.clamp(0, 1) * (len(_COLOURS) - 1)
    below = position.floor().clamp(max=len(_COLOURS) - 2)
    index = below.long()
    return torch.lerp(colours[:, index], colours[:, index + 1], position - below)


def _scale(width: int) -> Image.Image:
    """The scale: a bar of colours with its numbers, as wide as the map; legible where the map is 300 pixels wide."""
    size = max(8.0, width / 24)
    font = ImageFont.load_default(size)
    tall, margin = round(size * 2.5), round(size * 0.6)
    strip = Image.new("RGB", (width, tall), (0, 0, 0))
    draw = ImageDraw.Draw(strip)
    # The font that comes with Pillow has no Greek.
    delta = round(0.75 * size)
    left, right = round(2 * margin + delta + draw.textlength("E", font)), width - round(1.6 * size)
    if right - left < 6 * size:
        return strip
    base = round(tall / 2 + 0.36 * size)
    corners = [(margin, base), (margin + delta / 2, base - 0.72 * size), (margin + delta, base)]
    draw.line([*corners, corners[0], corners[1]], "white", max(1, round(size / 11)), joint="curve")
    draw.text((margin + delta + 0.08 * size, base), "E", "white", font, anchor="ls")
    bar = _colour(torch.linspace(0, 1, right - left))[:, None].expand(-1, round(size * 0.8), -1)
    strip.paste(Image.fromarray(_levels(bar)), (left, round(size * 0.35)))
    for mark in _MARKS:
        x = left + (mark - _FROM) / (_TO - _FROM) * (right - left)
        draw.text((x, round(size * 1.25)), f"{mark}+" if mark == _TO else str(mark), "white", font, anchor="ma")
    return strip


def _levels(x: torch.Tensor) -> npt.NDArray[np.uint8]:
    return np.asarray((x * 255).round().byte().movedim(0, -1).contiguous().numpy())
