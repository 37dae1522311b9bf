"""A recipe applied to a picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..opencv import opencv
from .kernels import Kernel, trimmed
from .noise import Floats, add_noise, levels
from .recipe import Recipe

Pixels = npt.NDArray[np.uint8]


def apply(recipe: Recipe, hq: Pixels, scale: int, rng: np.random.Generator) -> Pixels:
    """Degrade.

    Args:
        hq: ``(H, W, 3)`` RGB.
        scale: HQ pixels per LQ pixel.
        rng: of the noise.

    Returns:
        ``(H // scale, W // scale, 3)`` RGB.
    """
    cv2 = opencv()
    height, width = hq.shape[0] // scale, hq.shape[1] // scale
    # OpenCV's JPEG wants BGR; the order is changed once here and once at the end.
    x = cv2.cvtColor(hq, cv2.COLOR_RGB2BGR).astype(np.float32)

    first, second = recipe.first, recipe.second
    x = blur(x, first.blur)
    x = resize(x, hq.shape[0] * first.factor, hq.shape[1] * first.factor, first.mode)
    x = jpeg(add_noise(x, first.noise, rng), first.jpeg)

    x = blur(x, second.blur)
    x = resize(x, height * second.factor, width * second.factor, second.mode)
    x = add_noise(x, second.noise, rng)

    if not recipe.jpeg_last:
        x = jpeg(x, second.jpeg)
    x = blur(resize(x, height, width, recipe.mode), recipe.sinc)
    if recipe.jpeg_last:
        x = jpeg(x, second.jpeg)
    lq: Pixels = cv2.cvtColor(levels(x), cv2.COLOR_BGR2RGB)
    return lq


def blur(x: Floats, kernel: Kernel | None) -> Floats:
    """Filter ``(H, W, 3)``, reflecting at the border; None leaves it as it is."""
    cv2 = opencv()
    if kernel is None:
        return x
    blurred: Floats
    if kernel.separable:
        profile = trimmed(kernel.profile())
        blurred = cv2.sepFilter2D(x, cv2.CV_32F, profile, profile, borderType=cv2.BORDER_REFLECT_101)
    else:
        blurred = cv2.filter2D(x, cv2.CV_32F, trimmed(kernel.weights()), borderType=cv2.BORDER_REFLECT_101)
    return blurred


def resize(x: Floats, height: float, width: float, mode: str) -> Floats:
    """Resize ``(H, W, 3)``, sizes rounded down; bilinear and bicubic take no average when they shrink."""
    cv2 = opencv()
    size = max(1, int(width)), max(1, int(height))
    if size == (x.shape[1], x.shape[0]):
        return x
    how = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[mode]
    resized: Floats = cv2.resize(x, size, interpolation=how)
    return resized


def jpeg(x: Floats, quality: int) -> Floats:
    """Compress and decompress ``(H, W, 3)`` BGR, chroma at half the size."""
    cv2 = opencv()
    _, data = cv2.imencode(".jpg", levels(x), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.float32)
