"""Paints synthetic training pictures: dead leaves over textures, strokes, text. Nothing is downloaded.

Dead leaves (opaque shapes with power-law radii, each hiding what lies below) share the edge and scale
statistics of photographs. Here every leaf carries a colour gradient and a texture, some pictures have
strokes or text on top, and a mild optical blur that varies over the picture ends it, as a lens would.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ..errors import TrainingError
from ..files.atomic import replacing
from ..files.boundary import parsing

#: Pictures are drawn at this multiple of their size and box-filtered down, which gives true edges.
SUPERSAMPLE = 2

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,.&?!-"


def spectral_noise(rng: np.random.Generator, size: int, beta: float, anisotropy: float = 1.0) -> np.ndarray:
    """Noise with a ``1 / f**beta`` magnitude spectrum, optionally stretched along a random direction.

    Returns:
        ``(size, size)`` float32, mean 0, standard deviation 1.
    """
    fy = np.fft.fftfreq(size)[:, None].astype(np.float32)
    fx = np.fft.rfftfreq(size)[None, :].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    u, v = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    radius = np.sqrt((u * anisotropy) ** 2 + v**2)
    radius[0, 0] = np.inf
    low = rng.uniform(1, 6) / size
    white = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    noise = np.fft.irfft2(white / np.maximum(radius, low) ** beta * np.isfinite(radius), s=(size, size))
    noise -= noise.mean()
    return (noise / (noise.std() + 1e-8)).astype(np.float32)


def texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """One tile of a random texture family: cloud, grain, fur, stripes, checks, cells.

    Returns:
        ``(size, size)`` float32, about unit variance.
    """
    kind = rng.choice(["cloud", "grain", "fur", "stripes", "checks", "cells"], p=[0.36, 0.1, 0.22, 0.13, 0.06, 0.13])
    if kind == "cloud":
        return spectral_noise(rng, size, rng.uniform(1.0, 2.2))
    if kind == "grain":
        return spectral_noise(rng, size, rng.uniform(0.3, 1.0))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    bend = spectral_noise(rng, size, 2.2) * rng.uniform(0, size / 24)
    if kind == "fur":
        noise = spectral_noise(rng, size, rng.uniform(0.6, 1.2), anisotropy=rng.uniform(4, 14))
        yy = np.clip(y + bend, 0, size - 1).astype(np.int32)
        xx = np.clip(x + bend.T, 0, size - 1).astype(np.int32)
        return noise[yy, xx]
    angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(5), np.log(60)))
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle) + bend) * (2 * np.pi / period))
    if kind == "stripes":
        sharp = rng.uniform(1, 8)
        return np.tanh(wave * sharp).astype(np.float32)
    if kind == "checks":
        other = np.sin((y * np.cos(angle) - x * np.sin(angle) + bend) * (2 * np.pi / period))
        return np.sign(wave * other).astype(np.float32)
    cells = spectral_noise(rng, size, 1.5)
    for _ in range(int(rng.integers(1, 3))):
        cells = np.abs(cells) - 0.7
    return (cells / (cells.std() + 1e-6)).astype(np.float32)


class Painter:
    """Draws pictures; keeps a bank of texture tiles, which cost most of the time.

    Args:
        seed: the bank's seed. Pictures depend on it and on their own generator alone.
        size: pictures are ``size`` x ``size`` pixels.
        tiles: textures in the bank.
    """

    def __init__(self, seed: int, size: int = 256, tiles: int = 48):
        self.size = size
        self.canvas = size * SUPERSAMPLE
        rng = np.random.default_rng([seed, 1])
        self.bank = [texture(rng, self.canvas) for _ in range(tiles)]

    def picture(self, rng: np.random.Generator) -> np.ndarray:
        """One picture.

        Returns:
            ``(size, size, 3)`` uint8 RGB.
        """
        image = self._leaves(rng)
        pil = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        if rng.random() < 0.35:
            self._strokes(rng, pil)
        if rng.random() < 0.25:
            self._text(rng, pil)
        pil = self._lens(rng, pil)
        return np.asarray(pil.resize((self.size, self.size), Image.Resampling.BOX))

    # -- parts -----------------------------------------------------------------------------------------

    def _colour(self, rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
        return np.clip(palette[rng.integers(len(palette))] + rng.normal(0, 14) + rng.normal(0, 5, 3), 0, 255)

    def _palette(self, rng: np.random.Generator) -> np.ndarray:
        """A few colours that share a cast: mostly muted, sometimes vivid."""
        grey = rng.uniform(10, 245, (int(rng.integers(3, 8)), 1))
        vivid = rng.gamma(1.5, 7) if rng.random() < 0.85 else rng.uniform(30, 90)
        return grey + rng.normal(0, 10, 3) + rng.normal(0, vivid, (len(grey), 3))

    def _surface(self, rng: np.random.Generator, colour: np.ndarray, height: int, width: int) -> np.ndarray:
        """A textured, shaded patch in float32, ``(height, width, 3)``."""
        n = self.canvas
        tile = self.bank[rng.integers(len(self.bank))]
        if rng.random() < 0.5:
            tile = tile.T
        y0, x0 = int(rng.integers(0, n - height + 1)), int(rng.integers(0, n - width + 1))
        tile = tile[y0 : y0 + height, x0 : x0 + width]
        # Most surfaces of a photograph are smooth at this scale, and a texture so faint that LQ hides it teaches
        # a model to sample grain on everything flat. With texture on four surfaces of
        # five flat patches came out 4 levels noisier than HQ's; with two of five, many of them faint, 2.
        amplitude = 4.0 + rng.gamma(1.5, 6.0) if rng.random() < 0.25 else 0.0
        tint = 1 + rng.normal(0, 0.15, 3)
        ramp_y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * rng.normal(0, 18)
        ramp_x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * rng.normal(0, 18)
        luma = (tile * amplitude + ramp_y + ramp_x)[..., None]
        return (colour + luma * tint).astype(np.float32)

    def _leaves(self, rng: np.random.Generator) -> np.ndarray:
        n = self.canvas
        palette = self._palette(rng)
        image = self._surface(rng, self._colour(rng, palette), n, n)
        low, high = float(np.exp(rng.uniform(np.log(4), np.log(48)))), n * rng.uniform(0.25, 0.7)
        # Enough leaves to cover the canvas about 0.3 to 3 times.
        area = np.pi * low**2 * (1 + 2 * np.log(high / low)) * 0.4
        count = int(np.clip(rng.uniform(0.3, 3) * n * n / area, 20, 500))
        # Radii with density r**-3 between low and high, the scale-invariant law of occluding objects.
        u = rng.random(count)
        radii = np.sort(1 / np.sqrt(u / low**2 + (1 - u) / high**2))[::-1]
        if rng.random() < 0.5:
            rng.shuffle(radii)
        soft = rng.random() < 0.3
        for radius in radii:
            cx, cy = rng.uniform(-0.05, 1.05, 2) * n
            points = self._outline(rng, float(radius)) + np.array([cx, cy])
            x0, y0 = np.floor(points.min(0)).astype(int).clip(0, n)
            x1, y1 = np.ceil(points.max(0)).astype(int).clip(0, n) + 1
            x1, y1 = min(int(x1), n), min(int(y1), n)
            if x1 - x0 < 2 or y1 - y0 < 2:
                continue
            mask = Image.new("L", (x1 - int(x0), y1 - int(y0)))
            ImageDraw.Draw(mask).polygon([tuple(p) for p in points - np.array([x0, y0])], fill=255)
            if soft and radius > 24:
                mask = mask.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 6))))
            alpha = np.asarray(mask, dtype=np.float32)[..., None] / 255
            patch = self._surface(rng, self._colour(rng, palette), y1 - int(y0), x1 - int(x0))
            view = image[y0:y1, x0:x1]
            view += alpha * (patch - view)
        return image

    @staticmethod
    def _outline(rng: np.random.Generator, radius: float) -> np.ndarray:
        """Polygon points around the origin: ellipse, box, star-like blob, or sliver."""
        kind = rng.choice(4, p=[0.35, 0.25, 0.25, 0.15])
        turn = rng.uniform(0, 2 * np.pi)
        if kind == 1:
            angles = np.array([0.25, 0.75, 1.25, 1.75]) * np.pi
            r = np.ones(4)
            squeeze = rng.uniform(0.3, 1)
        else:
            angles = np.linspace(0, 2 * np.pi, int(rng.integers(5, 9)) if kind == 2 else 48, endpoint=False)
            r = rng.uniform(0.4, 1, len(angles)) if kind == 2 else np.ones(len(angles))
            squeeze = rng.uniform(0.05, 0.15) if kind == 3 else rng.uniform(0.4, 1)
        x, y = r * np.cos(angles), r * np.sin(angles) * squeeze
        rotated = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
        return rotated * radius

    def _strokes(self, rng: np.random.Generator, image: Image.Image) -> None:
        """Thin curves: hair, wires, branches, outlines."""
        draw = ImageDraw.Draw(image)
        n = self.canvas
        for _ in range(int(rng.integers(2, 30))):
            steps = int(rng.integers(2, 30))
            heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.25, steps))
            length = rng.uniform(4, 24)
            path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * length, 0) + rng.uniform(0, n, 2)
            colour = tuple(int(c) for c in rng.uniform(0, 255, 3))
            draw.line([tuple(p) for p in path], fill=colour, width=int(rng.integers(1, 7)), joint="curve")

    def _text(self, rng: np.random.Generator, image: Image.Image) -> None:
        """Lines of letters in Pillow's own font."""
        draw = ImageDraw.Draw(image)
        n = self.canvas
        for _ in range(int(rng.integers(1, 6))):
            font = ImageFont.load_default(float(np.exp(rng.uniform(np.log(14), np.log(90)))))
            letters = "".join(rng.choice(list(_LETTERS), int(rng.integers(3, 16))))
            x, y = rng.uniform(-0.1, 0.8, 2) * n
            draw.text((x, y), letters, font=font, fill=tuple(int(c) for c in rng.uniform(0, 255, 3)))

    def _lens(self, rng: np.random.Generator, image: Image.Image) -> Image.Image:
        """Optical blur: mild everywhere, strong where a smooth depth map says "out of focus"."""
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 2.4))))
        if rng.random() < 0.3:
            depth = spectral_noise(rng, 64, 2.0)
            mask = Image.fromarray(np.clip(128 + depth * 120, 0, 255).astype(np.uint8)).resize(
                image.size, Image.Resampling.BICUBIC
            )
            image = Image.composite(image.filter(ImageFilter.GaussianBlur(float(rng.uniform(2, 10)))), image, mask)
        return image


_painter: Painter
_seed: int


def _start_painter(seed: int, size: int) -> None:
    global _painter, _seed
    _painter, _seed = Painter(seed, size), seed


def _paint(i: int) -> np.ndarray:
    return _painter.picture(np.random.default_rng([_seed, 2, i]))


def paint_set(path: str, count: int, seed: int, size: int = 256) -> np.ndarray:
    """Draw ``count`` pictures into an ``.npy`` file of shape ``(count, size, size, 3)`` uint8, or reuse it.

    The i-th picture depends on ``seed``, ``size`` and i alone, so a file of the right shape is reused.

    Raises:
        TrainingError: if there is another file of that name, or it cannot be written.
    """
    from tqdm import tqdm

    if os.path.exists(path):
        have = _painted(path)
        if have.shape == (count, size, size, 3):
            return have
    pictures = np.empty((count, size, size, 3), np.uint8)
    # "spawn": a forked child of a process that has run PyTorch may hang in OpenMP.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context, initializer=_start_painter, initargs=(seed, size)) as pool:
        painted = pool.map(_paint, range(count), chunksize=16)
        for i, picture in enumerate(tqdm(painted, desc="painting", unit="picture", total=count)):
            pictures[i] = picture
    try:
        # Given a name, NumPy would put its own ending after it.
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, pictures)
    except OSError as e:
        raise TrainingError(f"the painted pictures {path} cannot be written ({e.strerror or e}): make room") from None
    return _painted(path)


def _painted(path: str) -> np.ndarray:
    """A set that was painted before; anything else must not be painted over."""
    with parsing(path, TrainingError, "delete it to paint its pictures again, or choose another data.cache"):
        have = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(have, np.ndarray) or have.dtype != np.uint8 or have.ndim != 4:
            raise TypeError("it holds no pictures")
        return have
