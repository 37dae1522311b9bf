"""The micro-batches of a run."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import TrainingError
from .config import RunConfig
from .data import Crops
from .degradation import Degradation
from .pictures import paint_set
from .subject import Batch, Sample
from .tables import read_table


@dataclass(frozen=True)
class Source:
    """Crops by number; micro-batch n has the crops from ``n * batch`` on, whichever process asks for it."""

    samples: Dataset[Sample]
    batch: int
    workers: int = 0

    def __call__(self, numbers: range) -> Iterable[Batch]:
        """The micro-batches of these numbers, prepared ahead in processes of their own: a thread would fight
        the training thread for Python's lock at every small operation."""
        more: dict[str, Any] = {"prefetch_factor": 4, "worker_init_fn": _ignore_interrupts} if self.workers else {}
        sampler: Any = _Numbers(numbers, self.batch)
        return DataLoader(self.samples, batch_sampler=sampler, collate_fn=Batch.of, num_workers=self.workers, **more)

    def first(self, count: int) -> Batch:
        """A batch to look at."""
        return Batch.of([self.samples[i] for i in range(count)])


@dataclass(frozen=True)
class _Numbers:
    """Crops' numbers, micro-batch by micro-batch."""

    numbers: range
    batch: int

    def __iter__(self) -> Iterator[list[int]]:
        for n in self.numbers:
            yield list(range(n * self.batch, (n + 1) * self.batch))

    def __len__(self) -> int:
        return len(self.numbers)


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the training process ends the others when it has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class SyntheticSamples(Dataset[Sample]):
    """Random crops of painted pictures; number n depends on the seed and n alone."""

    crops: Crops

    def __getitem__(self, index: int) -> Sample:
        lq, hq = self.crops.pair(np.random.default_rng([self.crops.seed, index]))
        side = self.crops.patch
        return Sample(_tensor(lq), _tensor(hq), original=(side, side))

    def __len__(self) -> int:
        return 2**62


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 255


def make_source(config: RunConfig) -> Source:
    """The data that a configuration asks for; synthetic pictures are painted if they are not there yet.

    Raises:
        PGPError: if the folder or the degradation is not usable.
    """
    data = config.data
    degradation = read_table(Degradation, data.degradation, "data.degradation", config.source, Path())
    if data.kind == "folder":
        raise TrainingError(f'{config.source}: data.kind "folder" is not there yet')
    pictures = paint_set(str(painted_path(config)), data.pictures, 0, data.size)
    crops = Crops(pictures, data.batch, data.patch, config.data_seed, degradation)
    return Source(SyntheticSamples(crops), data.batch, data.workers)


def painted_path(config: RunConfig) -> Path:
    """Where the painted set is kept."""
    return config.data.cache or config.run.folder.parent / "pictures.npy"
