"""What second-order degradations are drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image

from .checks import checked
from .kernels import FAMILIES, SINC, Kernel
from .recipe import MODES, Noise, Pass, Recipe
from .steps import apply

Range = tuple[float, float]
Six = tuple[float, float, float, float, float, float]

DIRECTIONS = ("up", "down", "keep")


@dataclass(frozen=True)
class SecondOrder:
    """Real-ESRGAN's second-order degradation; the defaults are FaithDiff's parameters (its ``train_kernel.yml``).

    The names are those of Real-ESRGAN's configuration files. A trailing 2 means the second pass. Ranges are drawn
    from uniformly. There is no sharpening of HQ, no colour jitter and no turning to grey, as in FaithDiff.

    Attributes:
        scale: HQ pixels per LQ pixel.
        kernel_range: least and greatest size of all kernels, odd; each odd size between them is equally likely.
        kernel_prob: of the families iso, aniso, generalized_iso, generalized_aniso, plateau_iso, plateau_aniso.
        blur_sigma: standard deviations, pixels.
        betag_range: shape of generalized Gaussians; half of them at most 1, half at least 1.
        betap_range: shape of plateaus, likewise.
        sinc_prob: of a sinc kernel instead, with a cutoff of π/5 (π/3 below 13 taps) to π.
        second_blur_prob: of a blur in the second pass; the first always has one.
        resize_prob: up, down, keep.
        resize_range: least factor of "down", greatest of "up"; in the second pass relative to LQ's size.
        gaussian_noise_prob: of Gaussian noise, else Poisson.
        noise_range: standard deviation of Gaussian noise, levels of 255.
        poisson_scale_range: factor on Poisson noise, see :class:`.recipe.Noise`.
        gray_noise_prob: of noise that is equal in all channels.
        jpeg_range: quality, whole numbers, both ends included.
        final_sinc_prob: of a sinc filter (π/3 to π) after the resize to LQ's size.
        jpeg_last_prob: of resize and sinc before the last JPEG, else after it.

    Raises:
        PGPError: naming the parameter that is not as it must be.
    """

    scale: int = 4
    kernel_range: tuple[int, int] = (7, 21)
    kernel_prob: Six = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    blur_sigma: Range = (0.2, 3.0)
    betag_range: Range = (0.5, 4.0)
    betap_range: Range = (1.0, 2.0)
    sinc_prob: float = 0.1
    resize_prob: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_range: Range = (0.3, 1.5)
    gaussian_noise_prob: float = 0.5
    noise_range: Range = (1.0, 15.0)
    poisson_scale_range: Range = (0.05, 2.0)
    gray_noise_prob: float = 0.4
    jpeg_range: tuple[int, int] = (60, 95)

    second_blur_prob: float = 0.5
    kernel_prob2: Six = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    blur_sigma2: Range = (0.2, 1.5)
    betag_range2: Range = (0.5, 4.0)
    betap_range2: Range = (1.0, 2.0)
    sinc_prob2: float = 0.1
    resize_prob2: tuple[float, float, float] = (0.3, 0.4, 0.3)
    resize_range2: Range = (0.6, 1.2)
    gaussian_noise_prob2: float = 0.5
    noise_range2: Range = (1.0, 12.0)
    poisson_scale_range2: Range = (0.05, 1.0)
    gray_noise_prob2: float = 0.4
    jpeg_range2: tuple[int, int] = (60, 100)

    final_sinc_prob: float = 0.8
    jpeg_last_prob: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            # TOML has lists where we have tuples.
            object.__setattr__(self, field.name, checked(field.name, getattr(self, field.name)))

    def draw(self, hq: Image.Image, rng: np.random.Generator) -> Image.Image:
        """A random LQ version of ``hq``, RGB, whose sides ``scale`` must divide.

        Raises:
            PGPError: if OpenCV is missing.
        """
        recipe = self.recipe(rng)
        return Image.fromarray(apply(recipe, np.asarray(hq), self.scale, rng))

    def recipe(self, rng: np.random.Generator) -> Recipe:
        """Everything that is random but the noise fields."""
        first = Pass(
            self._kernel(rng, self.sinc_prob, self.kernel_prob, self.blur_sigma, self.betag_range, self.betap_range),
            *self._resize(rng, self.resize_prob, self.resize_range),
            self._noise(
                rng, self.gaussian_noise_prob, self.noise_range, self.poisson_scale_range, self.gray_noise_prob
            ),
            _whole(rng, self.jpeg_range),
        )
        kernel2 = self._kernel(
            rng, self.sinc_prob2, self.kernel_prob2, self.blur_sigma2, self.betag_range2, self.betap_range2
        )
        second = Pass(
            kernel2 if rng.random() < self.second_blur_prob else None,
            *self._resize(rng, self.resize_prob2, self.resize_range2),
            self._noise(
                rng, self.gaussian_noise_prob2, self.noise_range2, self.poisson_scale_range2, self.gray_noise_prob2
            ),
            _whole(rng, self.jpeg_range2),
        )
        sinc = Kernel(SINC, self._size(rng), cutoff=float(rng.uniform(math.pi / 3, math.pi)))
        return Recipe(
            first,
            second,
            MODES[rng.integers(len(MODES))],
            sinc if rng.random() < self.final_sinc_prob else None,
            bool(rng.random() < self.jpeg_last_prob),
        )

    def _size(self, rng: np.random.Generator) -> int:
        low, high = self.kernel_range
        return low + 2 * int(rng.integers((high - low) // 2 + 1))

    def _kernel(
        self, rng: np.random.Generator, sinc: float, families: Six, sigma: Range, betag: Range, betap: Range
    ) -> Kernel:
        size = self._size(rng)
        if rng.random() < sinc:
            return Kernel(SINC, size, cutoff=float(rng.uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi)))
        family = FAMILIES[_pick(rng, families)]
        x = float(rng.uniform(*sigma))
        y, angle = x, 0.0
        if family.endswith("aniso"):
            y, angle = float(rng.uniform(*sigma)), float(rng.uniform(-math.pi, math.pi))
        beta = 1.0
        if family.startswith("generalized"):
            beta = _shape(rng, betag)
        elif family.startswith("plateau"):
            beta = _shape(rng, betap)
        return Kernel(family, size, (x, y), angle, beta)

    @staticmethod
    def _resize(rng: np.random.Generator, prob: Sequence[float], limits: Range) -> tuple[str, float, str]:
        direction = DIRECTIONS[_pick(rng, prob)]
        factor = 1.0
        if direction == "up":
            factor = float(rng.uniform(1, limits[1]))
        elif direction == "down":
            factor = float(rng.uniform(limits[0], 1))
        return direction, factor, MODES[rng.integers(len(MODES))]

    @staticmethod
    def _noise(rng: np.random.Generator, gaussian: float, sigma: Range, poisson: Range, grey: float) -> Noise:
        if rng.random() < gaussian:
            return Noise("gaussian", float(rng.uniform(*sigma)), bool(rng.random() < grey))
        return Noise("poisson", float(rng.uniform(*poisson)), bool(rng.random() < grey))


def _pick(rng: np.random.Generator, prob: Sequence[float]) -> int:
    """An index with these probabilities; ``rng.choice`` takes ten times as long."""
    return min(int(np.searchsorted(np.cumsum(prob), rng.random(), side="right")), len(prob) - 1)


def _shape(rng: np.random.Generator, limits: Range) -> float:
    return float(rng.uniform(limits[0], 1) if rng.random() < 0.5 else rng.uniform(1, limits[1]))


def _whole(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    return int(rng.integers(limits[0], limits[1] + 1))
