"""Small test pictures: smooth like a photograph, yet with energy at every frequency that fits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def smooth(seed: int, height: int, width: int) -> torch.Tensor:
    """``(1, 3, H, W)`` in [0, 1], whole 8-bit levels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    fine = torch.rand(1, 3, height, width, generator=generator)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return ((0.9 * x + 0.1 * fine).clamp(0, 1) * 255).round() / 255


def save(picture: torch.Tensor, file: Path) -> Path:
    """Write a picture as PNG."""
    array = (picture[0].movedim(0, -1) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(array).save(file)
    return file


def read(png: bytes) -> torch.Tensor:
    """``(1, 3, H, W)`` in [0, 1] from a PNG's bytes."""
    with Image.open(io.BytesIO(png)) as image:
        array = np.asarray(image.convert("RGB"))
    return torch.from_numpy(array.copy()).movedim(-1, 0)[None].float() / 255
