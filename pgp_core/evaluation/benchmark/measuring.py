"""Filling a benchmark's rows with figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from ...errors import PGPError
from ..metrics import METRICS
from . import pictures
from .judging import Job, Judgement, judge
from .results import Pair, Results, Row
from .workers import Workers

#: In what is said of a pair, whatever the row.
_OF_PAIR = ("its HQ picture: ", "its LQ picture: ", "LQ and HQ picture")


def chosen(names: Sequence[str] | None, references: Sequence[str | None]) -> list[str]:
    """The metrics to be measured, in the order of tables.

    Args:
        names: as a user says them; None for all.
        references: what there is to compare with: ``"hq"``, ``"lq"``; None is for metrics that look at a picture alone.

    Raises:
        PGPError: for one that is not known, or has nothing to compare with here, naming those that are possible.
    """
    possible = [m.name for m in METRICS.values() if m.reference in references]
    for name in names or ():
        if name not in possible:
            other = name in METRICS
            what = "compares with a picture that is not given here" if other else "is no metric"
            raise PGPError(f"{name} {what}: there are {', '.join(possible)}")
    return [name for name in possible if names is None or name in names]


class Measuring:
    """Measures pictures and notes what is found in their rows.

    Args:
        results: whose rows are filled.
        workers: processes, see :class:`Workers`.
        say: told what a user should know at once, a line each: each failure once.
        tick: called for each picture of a row that is done with, or failed.
    """

    def __init__(
        self,
        results: Results,
        workers: int,
        say: Callable[[str], None] = lambda _: None,
        tick: Callable[[], None] = lambda: None,
    ):
        self.results, self.say, self.tick = results, say, tick
        self.rows = {row.name: row for row in results.rows}
        self.names = tuple(m for m in results.metrics if not METRICS[m].network)
        #: Metric to lines that say why it could not be measured, by row and picture.
        self.problems: dict[str, dict[tuple[str, str], str]] = {}
        self.workers = Workers(workers, self._done, say)
        self._said: set[str] = set()

    def __enter__(self) -> Measuring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.workers.__exit__(kind, error, trace)

    def picture(self, row: Row, pair: Pair, file: Path, bicubic: bool = False) -> None:
        """Have a picture measured; with ``bicubic``, made first."""
        row.files[pair.name] = file
        self.workers.submit(Job(row.name, pair.name, file, pair.hq, pair.lq, self.names, bicubic))

    def fail(self, row: Row, name: str, line: str) -> None:
        """A pair has no figures in a row."""
        row.failed[name] = line
        row.files.pop(name, None)
        # One that cannot be read fails in every row alike.
        of_pair = any(words in line for words in _OF_PAIR)
        told = f"error: {'' if of_pair else f'{row.name}, '}{name}: {line}"
        if told not in self._said:
            self._said.add(told)
            self.say(told)
        self.tick()

    def finish(self) -> None:
        """Wait for all figures."""
        self.workers.finish()

    def networks(self, measures: Mapping[str, Callable[..., float]], tick: Callable[[], None] = lambda: None) -> None:
        """Measure by networks, in this process; all else is measured."""
        if not measures:
            return
        for row in self.results.rows:
            for pair in self.results.pairs:
                if pair.name in row.scores:
                    file = row.files[pair.name]
                    self._add(judge(Job(row.name, pair.name, file, pair.hq, pair.lq, tuple(measures)), measures))
                    tick()

    def _done(self, found: Judgement) -> None:
        row = self.rows[found.row]
        if found.error is not None:
            self.fail(row, found.pair, found.error)
            return
        self._add(found)
        self.tick()

    def _add(self, found: Judgement) -> None:
        if found.error is not None:
            self.fail(self.rows[found.row], found.pair, found.error)
            return
        self.rows[found.row].scores.setdefault(found.pair, {}).update(found.scores)
        for metric, line in found.problems.items():
            self.problems.setdefault(metric, {})[found.row, found.pair] = line
        if found.transparent and pictures.ON_WHITE not in self._said:
            self._said.add(pictures.ON_WHITE)
            self.say(pictures.ON_WHITE)
