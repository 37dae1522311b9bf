"""A run over many pictures: each is either done or named with what was wrong, and all are counted."""

from __future__ import annotations

import base64
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, PictureError, name_some
from ..files.locks import BusyError, locked
from .output import emit, plain, say

if TYPE_CHECKING:
    from ..batch.jobs import Job, Jobs
    from ..images.finding import FoundPictures


def paths(**named: Path) -> dict[str, Any]:
    """Paths for a line of JSON. Bytes of a name that are not UTF-8 are written as escapes; as the name cannot be
    restored from those, it is also there as ``…_base64``."""
    row = {name: str(path) for name, path in named.items()}
    for name, text in list(row.items()):
        try:
            text.encode()
        except UnicodeEncodeError:
            row[f"{name}_base64"] = base64.b64encode(os.fsencode(text)).decode()
    return row


def failure(source: Path, error: Exception) -> dict[str, Any]:
    """The JSON line of a picture that failed."""
    return {**paths(input=source), "error": str(error)}


class Batch:
    """One run of a command over its inputs.

    Args:
        found: the inputs.
        jobs: what is to be done with them.
        json: print a JSON line a picture.
        debug: print tracebacks.
        overwrite: results that are there are made again.
    """

    def __init__(self, found: FoundPictures, jobs: Jobs, json: bool, debug: bool, overwrite: bool = False):
        self.found, self.jobs, self.json, self.debug, self.overwrite = found, jobs, json, debug, overwrite
        self.done, self.failed = 0, 0

    def run(self, load: Callable[[], Callable[[Job], dict[str, Any]]]) -> int:
        """Work on every picture.

        Args:
            load: called if there is anything to do, before it is done; what it returns makes a result and gives its
                JSON line.

        Returns:
            the exit status.

        Raises:
            PGPError: what ``load`` raises; the failure of a lone input.
            KeyboardInterrupt, Cancelled: after what has been done is said.
        """
        self._skipped()
        for source, error in (*self.found.failed, *self.jobs.failed):
            self._fail(source, error)
        try:
            if self.jobs.todo:
                make = load()
                # What another process makes right now comes last: it is there by then, or is ours to make.
                busy = [job for job in self.jobs.todo if not self._held(make, job, self.found.total == 1)]
                for job in busy:
                    self._held(make, job, True)
        except (KeyboardInterrupt, Cancelled):
            if self.found.total > 1:
                say(self._summary())
            raise
        if self.found.total > 1 or not self.jobs.todo:
            say(self._summary())
        return 1 if self.failed else 0

    def _held(self, make: Callable[[Job], dict[str, Any]], job: Job, wait: bool) -> bool:
        """Make a result that no other process makes meanwhile; False if one does and it is not to be waited for."""

        def waiting(owner: str) -> None:
            say(f"{job.target} is being made by {owner}: waiting for it")

        try:
            with locked(job.target, "left for the end", waiting if wait else None):
                if self.overwrite or not os.path.lexists(job.target):
                    self._one(make, job)
                    return True
        except BusyError as e:
            say(str(e))
            return False
        self.jobs.done.append(job)
        if self.json:
            emit({**paths(input=job.source, output=job.target), "skipped": True})
        say(f"{job.target} has been made by another process meanwhile")
        return True

    def _one(self, make: Callable[[Job], dict[str, Any]], job: Job) -> None:
        from ..batch.failures import give_back_memory, lacks_memory, one_picture

        out_of_memory = False
        try:
            with one_picture(job.source):
                row = make(job)
        except PictureError as e:
            out_of_memory = lacks_memory(e.__cause__) if e.__cause__ else False
            self._fail(job.source, e)
        else:
            self.done += 1
            if self.json:
                emit(row)
            plain(f"{job.target}  {row['width']} x {row['height']}, {row['seconds']:.1f} s{_faithful(row)}")
        # Not while the error is held, which holds what the picture took.
        if out_of_memory:
            give_back_memory()

    def _fail(self, source: Path, error: PictureError) -> None:
        self.failed += 1
        if self.json:
            emit(failure(source, error))
        if self.found.total == 1:
            raise error
        if self.debug:
            traceback.print_exception(error, file=sys.stderr)
        say(f"error: {error}")

    def _skipped(self) -> None:
        """What is not done, and why."""
        jobs = self.jobs
        if self.json:
            for job in jobs.done:
                emit({**paths(input=job.source, output=job.target), "skipped": True})
            for path in jobs.results:
                emit({**paths(input=path, output=path), "skipped": True, "is_result": True})
        if jobs.unsaid:
            say(f"there already, and taken for results by their names: {_names(jobs.unsaid)}")
        for job in jobs.changed:
            say(f"{job.source} has changed since {job.target} was made of it: --overwrite makes it again")
        sure = [p for p in jobs.results if p not in jobs.maybe_results]
        if sure:
            say(f"not enlarged again, being results themselves: {_names(sure)}")
        for path in jobs.maybe_results:
            say(f"{path} is named like a result of the picture beside it, and so not enlarged: rename it if it is none")

    def _summary(self) -> str:
        text = f"{self.done} of {self.found.total} pictures done"
        if self.jobs.done:
            text += f", {len(self.jobs.done)} skipped that were there already (--overwrite makes them again)"
        if self.jobs.results:
            text += f", {len(self.jobs.results)} skipped that are results"
        if self.failed:
            text += f", {self.failed} failed"
        left = self.found.total - self.done - len(self.jobs.done) - len(self.jobs.results) - self.failed
        return f"{text}, {left} not begun or not finished" if left else text


def _faithful(row: dict[str, Any]) -> str:
    if "faithfulness_db" not in row:
        return ""
    from ..images.faithfulness import decibels

    return f", {decibels(row['faithfulness_db'])}"


def _names(paths: list[Path]) -> str:
    return name_some(p.name for p in paths)
