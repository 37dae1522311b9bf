"""Pictures for folders of samples: smooth ones, and ones of 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

PATCH = 64


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    return np.clip((ndimage.gaussian_filter(noise, (3, 3, 0)) - 127) * 10 + 127, 0, 255).astype(np.uint8)


def levels(picture: torch.Tensor) -> np.ndarray:
    """Back to ``(H, W, 3)`` uint8."""
    return picture.mul(255).round().byte().permute(1, 2, 0).numpy()


def save_deep(path: Path, pixels: np.ndarray) -> np.ndarray:
    pyvips = pytest.importorskip("pyvips")
    deep = np.ascontiguousarray(pixels.astype(np.uint16) * 257)
    pyvips.Image.new_from_array(deep).copy(interpretation="rgb16").pngsave(str(path))
    return pixels
