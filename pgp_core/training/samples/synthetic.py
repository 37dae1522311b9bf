"""Samples from synthetic pictures, which :mod:`pgp_core.training.painting` paints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from ...errors import PGPError
from ..degradation import Degradation
from ..subject import Sample
from .cutting import Cutter, Degrades
from .mapped import Mapped, mapped


class SyntheticSamples(Dataset[Sample]):
    """Random crops of pictures in memory, turned and mirrored; the n-th depends on the pictures, the seed and n alone.

    Args:
        pictures: ``(N, H, W, 3)`` uint8, H = W, as :func:`pgp_core.training.painting.paint_set` makes them.
        patch: the crop's side, HQ pixels.
        seed: of everything random.
        degradation: HQ to LQ; nano's first order by default.
        enlarge: LQ to canvas, see :class:`.cutting.Cutter`.

    Raises:
        PGPError: if the pictures are smaller than a crop.
    """

    def __init__(
        self,
        pictures: np.ndarray,
        patch: int,
        seed: int,
        degradation: Degrades | None = None,
        *,
        enlarge: Sequence[str] = ("lanczos",),
    ):
        self.cutter = Cutter(patch, degradation or Degradation(), enlarge)
        self.pictures: Any = pictures
        self.seed = seed
        if not len(pictures) or min(pictures.shape[1:3]) < patch:
            raise PGPError(f"painted pictures of the shape {pictures.shape} are too small for crops of {patch} pixels")

    @property
    def patch(self) -> int:
        """The crop's side, HQ pixels."""
        return self.cutter.patch

    def __getitem__(self, index: int) -> Sample:
        """Crop number ``index``, from 0 without end."""
        rng = np.random.default_rng([self.seed, 0, index])
        picture = np.rot90(self.pictures[rng.integers(len(self.pictures))], int(rng.integers(4)))
        mirror = bool(rng.random() < 0.5)
        return self.cutter.draw(Image.fromarray(np.ascontiguousarray(picture)), rng, mirror=mirror)

    def __getstate__(self) -> dict[str, Any]:
        """What worker processes get: pictures that are mapped from a file are mapped there again, not copied."""
        return {**self.__dict__, "pictures": mapped(self.pictures)} if mapped(self.pictures) else self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.pictures, Mapped):
            self.pictures = self.pictures.open()

    def summary(self) -> SyntheticSummary:
        """What there is."""
        return SyntheticSummary(len(self.pictures))


class SyntheticSummary:
    """See :class:`.folder.FolderSummary`."""

    def __init__(self, pictures: int):
        self.pictures, self.captions = pictures, 0

    def lines(self) -> list[str]:
        """What they are made of, in a line for people."""
        return [f"{self.pictures} painted pictures"]

    def to_json(self) -> dict[str, Any]:
        """Numbers."""
        return {"pictures": self.pictures, "captions": 0}
