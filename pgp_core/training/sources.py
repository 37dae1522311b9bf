"""The micro-batches of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import RunConfig
from .degradation import Degradation
from .painting import paint_set
from .samples import FAITHDIFF_ENLARGEMENTS, FolderSamples, Samples, SyntheticSamples, TaughtSamples, loader
from .second_order import SecondOrder
from .subject import Batch
from .tables import read_table

#: From here on samples are looked at and never trained on: no run gets so far.
HELD_OUT = 2**40


@dataclass(frozen=True)
class Source:
    """Samples by number, in micro-batches by number; see :func:`pgp_core.training.samples.loader`.

    Attributes:
        held_out: number of the first sample that :meth:`first` shows.
    """

    samples: Samples
    batch: int
    accumulation: int = 1
    workers: int = 0
    held_out: int = 0

    def __call__(self, numbers: range) -> Iterable[Batch]:
        """The micro-batches of one process, to the end of the run.

        Args:
            numbers: among those of all steps and processes: from the first of a step, one in as many as there are
                processes.
        """
        world = numbers.step
        step = world * self.accumulation
        return loader(
            self.samples,
            self.batch,
            numbers.start // step,
            numbers.stop // step,
            rank=numbers.start % step,
            world=world,
            accumulation=self.accumulation,
            workers=self.workers,
        )

    def first(self, count: int) -> Batch:
        """A batch to look at: crops that the run is not trained on (of its pictures)."""
        return Batch.of([self.samples[self.held_out + i] for i in range(count)])


def make_source(config: RunConfig) -> Source:
    """The data that a configuration asks for; synthetic pictures are painted if they are not there yet, but a teacher's
    crops are not made.

    Raises:
        PGPError: if the folder, the degradation or the teacher's file is not usable.
    """
    data = config.data
    if config.teacher is not None:
        taught = TaughtSamples(taught_path(config), data.patch, config.data_seed, config.teacher.sigma, HELD_OUT)
        return Source(taught, data.batch, data.accumulation, data.workers, HELD_OUT)
    enlarge = ("lanczos",) if data.enlarge == "canvas" else FAITHDIFF_ENLARGEMENTS
    degradation = make_degradation(config)
    samples: Any
    if data.kind == "folder":
        assert data.folder is not None
        samples = FolderSamples(
            data.folder,
            data.patch,
            config.data_seed,
            degradation,
            enlarge=enlarge,
            crops_per_picture=data.crops_per_picture,
        )
    else:
        pictures = paint_set(str(painted_path(config)), data.pictures, 0, data.size)
        samples = SyntheticSamples(pictures, data.patch, config.data_seed, degradation, enlarge=enlarge)
    return Source(samples, data.batch, data.accumulation, data.workers, HELD_OUT)


def make_degradation(config: RunConfig) -> SecondOrder | Degradation:
    """HQ to LQ as the configuration has it.

    Raises:
        PGPError: naming the parameter that is not as it must be.
    """
    data = config.data
    second = data.recipe == "second-order" or (data.recipe == "default" and data.kind == "folder")
    kind: Any = SecondOrder if second else Degradation
    made: SecondOrder | Degradation = read_table(kind, data.degradation, "data.degradation", config.source, Path())
    return made


def taught_path(config: RunConfig) -> Path:
    """Where a teacher's crops are kept."""
    assert config.teacher is not None
    return config.teacher.file or config.run.folder.parent / "teacher.safetensors"


def painted_path(config: RunConfig) -> Path:
    """Where the painted set is kept."""
    return config.data.cache or config.run.folder.parent / "pictures.npy"
