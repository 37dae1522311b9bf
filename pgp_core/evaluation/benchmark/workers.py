"""Processes that measure, beside the model. This module is the first that they import: it leads to no library."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .judging import Job, Judgement

#: More are not started unless a user says so: each holds some pictures and libraries.
_MOST = 8
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VIPS_CONCURRENCY")
ENDED = "the process that measured it was ended, for want of memory as it seems: fewer --workers take less"


def default_workers() -> int:
    """One a processor that this process may use, up to 8."""
    try:
        there = len(os.sched_getaffinity(0))
    except AttributeError:
        there = os.cpu_count() or 1
    return max(1, min(_MOST, there))


class Workers:
    """Measures pictures in processes of its own; use it with ``with``: no process outlives the block.

    A process that is ended from outside, for its memory say, costs the picture that it worked on, which is named, and
    no other: what was under way is measured again, one after another.

    Args:
        count: processes; 0 measures in this one, when :meth:`submit` is called.
        done: called in this thread, by :meth:`submit`, :meth:`pump` and :meth:`finish`, for each picture.
        say: told when one was ended.
    """

    def __init__(self, count: int, done: Callable[[Judgement], None], say: Callable[[str], None] = lambda _: None):
        self.count, self.done, self.say = count, done, say
        self._before = set(multiprocessing.active_children())
        self._pool: ProcessPoolExecutor | None = None
        self._ready: queue.SimpleQueue[tuple[Job, Future[Judgement]]] = queue.SimpleQueue()
        self._waiting = 0
        self._again: list[Job] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(kill=error is not None)

    def submit(self, job: Job) -> None:
        """Have a picture measured."""
        if not self.count:
            from .judging import judge

            self.done(judge(job))
            return
        if self._pool is None:
            self._pool = _pool(self.count)
        try:
            future = self._pool.submit(_work, job)
        except BrokenProcessPool:
            self._again.append(job)
            return
        self._waiting += 1
        future.add_done_callback(lambda f: self._ready.put((job, f)))
        self.pump()

    def pump(self) -> None:
        """Hand on what is measured by now."""
        while self._waiting:
            try:
                self._take(*self._ready.get_nowait())
            except queue.Empty:
                return

    def finish(self) -> None:
        """Wait for all that were submitted."""
        while self._waiting:
            self._take(*self._ready.get())
        if self._again:
            self.say("a process that measures was ended from outside: what is left is measured one after another")
        for job in self._again:
            if self._pool is None or self._pool_of != 1:
                self._close(kill=True)
                self._pool, self._pool_of = _pool(1), 1
            try:
                self.done(self._pool.submit(_work, job).result())
            except BrokenProcessPool:
                self._close(kill=True)
                self.done(_ended(job))
        self._again = []

    _pool_of = 0

    def _take(self, job: Job, future: Future[Judgement]) -> None:
        self._waiting -= 1
        try:
            found = future.result()
        except BrokenProcessPool:
            self._again.append(job)
            return
        self.done(found)

    def _close(self, kill: bool) -> None:
        pool, self._pool, self._pool_of = self._pool, None, 0
        if pool is None:
            return
        if kill:
            # Those that this one has started, and nobody else in this process.
            for child in set(multiprocessing.active_children()) - self._before:
                child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(count: int) -> ProcessPoolExecutor:
    # Not forked: this process has threads of PyTorch's, and a card.
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start)


def _start() -> None:
    """What a process does first."""
    for name in _THREADS:
        os.environ[name] = "1"
    # Ctrl-C is the first process's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """However the first process ends, this one does not stay."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(job: Job) -> Judgement:
    import warnings

    from .judging import judge

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return judge(job)


def _ended(job: Job) -> Judgement:
    from .judging import Judgement

    return Judgement(job.row, job.pair, error=ENDED)
