"""Samples from a file of crops with a teacher's answer; HQ is what is learned of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ...errors import TrainingError
from ..subject import Sample
from ..taught_file import read_taught
from ..teachers import target

#: So many crops at the file's end are looked at and never trained on; less of a small file.
_LOOKED_AT = 16


class TaughtSamples(Dataset[Sample]):
    """Cuts of a file's crops, turned and mirrored; the n-th depends on the file, the seed and n alone.

    Every crop comes once before any comes again, in an order that is new each time.

    Args:
        file: see :mod:`pgp_core.training.taught_file`.
        patch: the side of what is cut, HQ pixels.
        seed: of everything random.
        sigma: see :func:`pgp_core.training.teachers.target`.
        held_out: number of the first sample that is made of crops which no sample before it is made of.

    Raises:
        TrainingError: if the file is not usable, or its crops are smaller than ``patch``.
    """

    def __init__(self, file: Path, patch: int, seed: int, sigma: float, held_out: int = 2**40):
        self._made_of = file, patch, seed, sigma, held_out
        self.file, self.patch, self.seed, self.sigma, self.held_out = read_taught(file), patch, seed, sigma, held_out
        if self.file.size < patch:
            raise TrainingError(f"{file} has crops of {self.file.size} pixels, data.patch is {patch}: make larger ones")
        self._spare = max(1, min(_LOOKED_AT, len(self.file) // 8))
        self._order: tuple[int, np.ndarray] | None = None

    def __getitem__(self, index: int) -> Sample:
        """Sample number ``index``, from 0 without end."""
        rng = np.random.default_rng([self.seed, 0, index])
        which, file = self._which(index), self.file
        hq, lq, taught = (_tensor(part[which]) for part in (file.hq, file.lq, file.taught))
        # Of the whole crop: near the borders of a cut the Gaussian would see less.
        learned = target(hq, taught, self.sigma)
        scale = int(file.about["scale"])
        # An LQ pixel's corner is one of the canvas, as where a whole picture is restored.
        y, x = (scale * int(rng.integers((file.size - self.patch) // scale + 1)) for _ in range(2))
        turns, mirror = int(rng.integers(4)), bool(rng.random() < 0.5)

        def cut(whole: torch.Tensor) -> torch.Tensor:
            part = torch.rot90(whole[:, y : y + self.patch, x : x + self.patch], turns, (1, 2))
            return (part.flip(2) if mirror else part).contiguous()

        return Sample(cut(lq), cut(learned), "", (file.size, file.size), (y, x))

    def __reduce__(self) -> Any:
        """A worker maps the file itself."""
        return TaughtSamples, self._made_of

    def summary(self) -> TaughtSummary:
        """What there is."""
        return TaughtSummary(len(self.file), self.file.about)

    def _which(self, index: int) -> int:
        trained = len(self.file) - self._spare
        if index >= self.held_out:
            return trained + (index - self.held_out) % self._spare
        epoch, place = divmod(index, trained)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, 2, epoch]).permutation(trained)
        return int(self._order[1][place])


class TaughtSummary:
    """See :class:`.folder.FolderSummary`."""

    def __init__(self, crops: int, about: dict[str, Any]):
        self.pictures, self.captions, self.about = crops, 0, about

    def lines(self) -> list[str]:
        """What they are made of, in a line for people."""
        return [f"{self.pictures} crops with the answer of {self.about['teacher']} ({self.about['licence']})"]

    def to_json(self) -> dict[str, Any]:
        """Numbers and names."""
        said = {k: self.about[k] for k in ("teacher", "licence", "sha256")}
        return {"pictures": self.pictures, "captions": 0, **said}


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float().div_(255)
