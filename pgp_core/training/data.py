"""Batches of LQ canvas and HQ crop; the n-th batch depends on the seed and n alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..canvas import resize
from .degradation import Degradation


@dataclass(frozen=True)
class Crops(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Random crops with LQ made on the fly.

    Attributes:
        pictures: ``(N, H, W, 3)`` uint8.
        batch, patch: crops per batch and their side in HQ pixels (a multiple of the scale).
        seed: of everything random here.
    """

    pictures: np.ndarray
    batch: int
    patch: int
    seed: int
    degradation: Degradation = field(default_factory=Degradation)

    #: LQ pixels around a crop that are degraded with it and then cut away, so that blur and JPEG see no
    #: border that the full picture would not have.
    margin = 4

    def at(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch number ``step``.

        Returns:
            LQ canvas and HQ, each ``(batch, 3, patch, patch)`` float32 in [0, 1].
        """
        rng = np.random.default_rng([self.seed, step])
        pairs = [self.pair(rng) for _ in range(self.batch)]
        lq, hq = (torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).float() / 255 for x in zip(*pairs, strict=True))
        return lq, hq

    def pair(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        scale, margin = self.degradation.scale, self.margin
        side = self.patch + 2 * margin * scale
        picture = self.pictures[rng.integers(len(self.pictures))]
        y, x = (int(rng.integers(0, n - side + 1)) for n in picture.shape[:2])
        crop = picture[y : y + side, x : x + side]
        crop = np.rot90(crop, int(rng.integers(4)))
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        hq = Image.fromarray(np.ascontiguousarray(crop))
        canvas = np.asarray(resize(self.degradation.draw(hq, rng), side, side))
        inner = slice(margin * scale, margin * scale + self.patch)
        return canvas[inner, inner], np.asarray(hq)[inner, inner]

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.at(step)

    def __len__(self) -> int:
        return 2**31 - 1
