"""Degradation: HQ picture to LQ. First order here: blur, downscale, noise, JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Degradation:
    """Ranges that a random degradation is drawn from; all uniform.

    Attributes:
        scale: HQ pixels per LQ pixel.
        blur: standard deviation of the Gaussian blur, HQ pixels.
        noise: standard deviation of the added noise, levels of 255.
        jpeg: quality.
        box: probability of a box filter when shrinking, else bicubic.
    """

    scale: int = 4
    blur: tuple[float, float] = (0.4, 1.5)
    noise: tuple[float, float] = (0.0, 6.0)
    jpeg: tuple[int, int] = (65, 95)
    box: float = 0.7

    def draw(self, hq: Image.Image, rng: np.random.Generator) -> Image.Image:
        """A random LQ version of ``hq``, whose sides ``scale`` must divide."""
        resample = Image.Resampling.BOX if rng.random() < self.box else Image.Resampling.BICUBIC
        return degrade(
            hq,
            self.scale,
            float(rng.uniform(*self.blur)),
            float(rng.uniform(*self.noise)),
            int(rng.integers(self.jpeg[0], self.jpeg[1] + 1)),
            rng,
            resample,
        )


def degrade(
    hq: Image.Image,
    scale: int,
    blur: float,
    noise: float,
    jpeg: int,
    rng: np.random.Generator,
    resample: Image.Resampling = Image.Resampling.BOX,
) -> Image.Image:
    """Blur, shrink, add noise, compress, in this order.

    Args:
        hq: RGB, sides divisible by ``scale``.
        blur: Gaussian radius (standard deviation), HQ pixels.
        noise: standard deviation, levels of 255, independent per pixel and channel.
        jpeg: quality, 1 to 95.
    """
    small = hq.filter(ImageFilter.GaussianBlur(blur)).resize((hq.width // scale, hq.height // scale), resample)
    noisy = np.asarray(small, np.float32) + rng.normal(0, noise, (small.height, small.width, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=jpeg)
    return Image.open(buffer, formats=("JPEG",)).convert("RGB")


def fixed_recipe(hq: Image.Image, seed: int = 0) -> Image.Image:
    """The evaluation's recipe: Gaussian blur radius 1.0, box to a quarter, noise 3/255, JPEG 80."""
    return degrade(hq, 4, 1.0, 3.0, 80, np.random.default_rng(seed))
