"""Samples from a folder of HQ pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ...errors import PGPError, PictureError
from ..second_order import SecondOrder
from ..subject import Sample
from .cutting import Cutter, Degrades
from .decoding import Shelf
from .scanning import named, scan

_log = logging.getLogger(__name__)

#: After so many broken pictures in a row something else is wrong.
_MOST_BROKEN = 20


@dataclass(frozen=True)
class FolderSummary:
    """What a folder holds.

    Attributes:
        folder: that was looked through.
        patch: the crop's side, pixels.
        pictures: how many can be used, those among them that broke later not counted.
        captions: how many of them have one.
        small, broken: skipped.
    """

    folder: Path
    patch: int
    pictures: int
    captions: int
    small: tuple[Path, ...]
    broken: tuple[Path, ...]

    def lines(self) -> list[str]:
        """What was found, in lines for people."""
        lines = [f"{self.pictures} pictures in {self.folder}, {self.captions} with a caption"]
        if self.small:
            what = f"smaller than a crop of {self.patch}x{self.patch} pixels"
            lines.append(f"skipped, {what}: {named(self.small, self.folder)}")
        if self.broken:
            lines.append(f"skipped, broken: {named(self.broken, self.folder)}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Numbers and names."""
        return {
            "folder": str(self.folder),
            "pictures": self.pictures,
            "captions": self.captions,
            "small": [str(p) for p in self.small],
            "broken": [str(p) for p in self.broken],
        }


class FolderSamples(Dataset[Sample]):
    """Random crops of a folder's pictures; the n-th depends on the folder, the seed and n alone.

    Every picture comes once before any comes again, in an order that is new each time. Half the crops are mirrored;
    then ``corner`` counts in the mirrored picture, as FaithDiff and SDXL do it.

    Args:
        folder: see :func:`.scanning.scan`.
        patch: the crop's side, HQ pixels; pictures with a smaller side are skipped.
        seed: of everything random.
        degradation: HQ to LQ; FaithDiff's second order by default.
        enlarge: LQ to canvas, see :class:`.cutting.Cutter`.
        flip: whether to mirror.
        crops_per_picture: so many crops in a row come from one picture. More than 1 spares decoding where that is
            what takes the time (PNG, very large pictures) and makes batches less varied.
        keep: bytes of decoded pictures that each process may keep.

    Raises:
        PGPError: for a folder without usable pictures, a caption that is not UTF-8, or a parameter out of range.
    """

    def __init__(
        self,
        folder: Path,
        patch: int,
        seed: int,
        degradation: Degrades | None = None,
        *,
        enlarge: Sequence[str] = ("lanczos",),
        flip: bool = True,
        crops_per_picture: int = 1,
        keep: int = 256 * 2**20,
    ):
        if crops_per_picture < 1:
            raise PGPError(f"crops_per_picture must be 1 or more, not {crops_per_picture}")
        self.cutter = Cutter(patch, degradation or SecondOrder(), enlarge)
        self.seed, self.flip, self.crops_per_picture = seed, flip, crops_per_picture
        self.found = scan(folder, patch)
        self._shelf = Shelf(keep)
        self._order: tuple[int, np.ndarray] | None = None
        # Shared between the processes that make crops: which pictures could not be decoded.
        self._broken = torch.zeros(len(self.found.pictures), dtype=torch.uint8).share_memory_()

    @property
    def patch(self) -> int:
        """The crop's side, HQ pixels."""
        return self.cutter.patch

    def __getitem__(self, index: int) -> Sample:
        """Crop number ``index``, from 0 without end.

        Raises:
            PGPError: if picture after picture cannot be decoded.
        """
        rng = np.random.default_rng([self.seed, 0, index])
        which, picture = self._picture(index // self.crops_per_picture)
        mirror = self.flip and bool(rng.random() < 0.5)
        return self.cutter.draw(picture, rng, self.found.captions[which], mirror)

    def summary(self) -> FolderSummary:
        """What was found and skipped, with what turned out to be broken since."""
        found = self.found
        late = {path for path, broken in zip(found.pictures, self._broken.tolist(), strict=True) if broken}
        left = [caption for path, caption in zip(found.pictures, found.captions, strict=True) if path not in late]
        broken = (*found.broken, *sorted(late))
        return FolderSummary(found.folder, self.patch, len(left), sum(map(bool, left)), found.small, broken)

    def _picture(self, turn: int) -> tuple[int, Image.Image]:
        """Number of the picture whose turn it is, and itself; another one if it is broken."""
        which = self._which(turn)
        instead = np.random.default_rng([self.seed, 1, turn])
        for _ in range(_MOST_BROKEN):
            try:
                return which, self._decoded(which)
            except PictureError as e:
                if not self._broken[which]:
                    self._broken[which] = 1
                    _log.warning("%s; another picture takes its place", e)
            which = int(instead.integers(len(self.found.pictures)))
        raise PGPError(
            f"{_MOST_BROKEN} pictures in a row cannot be read in {self.found.folder}, "
            f"{self.found.pictures[which].name} the last of them: check the folder"
        )

    def _decoded(self, which: int) -> Image.Image:
        path = self.found.pictures[which]
        if self._broken[which]:
            raise PictureError(f"{path} is broken")
        picture = self._shelf.picture(path)
        if min(picture.size) < self.patch:
            raise PictureError(f"{path} has become smaller than a crop")
        return picture

    def _which(self, turn: int) -> int:
        epoch, place = divmod(turn, len(self.found.pictures))
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self.seed, 2, epoch]).permutation(len(self.found.pictures))
            self._order = epoch, order
        return int(self._order[1][place])
