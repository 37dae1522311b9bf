"""Batches in the order of the run, made ahead in processes of their own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch.utils.data import DataLoader, Dataset

from ...errors import PGPError
from ..subject import Batch, Sample


class Summary(Protocol):
    """What samples are made of."""

    @property
    def pictures(self) -> int:
        """How many."""

    @property
    def captions(self) -> int:
        """How many have one."""

    def lines(self) -> list[str]:
        """What they are made of, in lines for people."""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON data, for scripts."""


class Samples(Protocol):
    """An endless list of samples; each depends on its index and a seed alone."""

    @property
    def patch(self) -> int:
        """The crop's side, HQ pixels."""

    def __getitem__(self, index: int) -> Sample:
        """Sample number ``index``."""

    def summary(self) -> Summary:
        """What they are made of."""


@dataclass(frozen=True)
class _Batches(Dataset[Batch | PGPError]):
    """Batch number n of one process of the run.

    Sample number i of the micro-batch ``micro`` of the step ``step`` on process ``rank`` is, of all samples, number
    ``((step * accumulation + micro) * world + rank) * batch + i``.
    """

    samples: Samples
    batch: int
    rank: int
    world: int

    def __getitem__(self, n: int) -> Batch | PGPError:
        first = (n * self.world + self.rank) * self.batch
        try:
            return Batch.of([self.samples[first + i] for i in range(self.batch)])
        except PGPError as e:
            # Raised in a worker, it would arrive with a traceback in its message.
            return e


def loader(
    samples: Samples,
    batch: int,
    start: int,
    stop: int,
    *,
    rank: int = 0,
    world: int = 1,
    accumulation: int = 1,
    workers: int = 1,
) -> Iterator[Batch]:
    """The micro-batches of the steps ``start`` to ``stop - 1`` of one process.

    What a step is trained on does not depend on where a run was resumed nor on ``workers``; with the product of
    ``batch``, ``world`` and ``accumulation``, it sees the same samples however they are shared out.

    Args:
        batch: samples in a micro-batch.
        rank, world: this process, of how many.
        accumulation: micro-batches in a step.
        workers: processes that make batches; 0 for this one. They import the main module, as Python's "spawn" does.

    Yields:
        ``(stop - start) * accumulation`` batches.

    Raises:
        PGPError: what the samples raise.
    """
    ahead: dict[str, Any] = {}
    if workers:
        ahead = {"prefetch_factor": 2, "worker_init_fn": _start_worker, "multiprocessing_context": _context()}
    batches = DataLoader(
        _Batches(samples, batch, rank, world),
        batch_size=None,
        sampler=range(start * accumulation, stop * accumulation),
        num_workers=workers,
        **ahead,
    )
    for made in batches:
        if isinstance(made, PGPError):
            raise made
        yield made


def _context() -> Any:
    """Workers start clean: forked from this process they would wait for ever for threads of libvips (pictures of 16
    bits), OpenMP or CUDA that stayed behind. A server that has imported PyTorch once makes the start quick."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start_worker(_number: int) -> None:
    """Ctrl-C is for the process that trains; it ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
