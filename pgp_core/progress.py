"""What long work tells while it runs, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable

from .errors import Cancelled

#: ``progress(done, total)`` after each step; return False to cancel.
Progress = Callable[[int, int], "bool | None"]
#: Told in one line what is worth knowing and no error; what it returns is not looked at.
Say = Callable[[str], object]


class Watched:
    """Progress that can also be asked between steps, after each tile, whether to go on.

    Args:
        progress: told the steps done so far again each time.
        total: how many there will be.
    """

    def __init__(self, progress: Progress | None, total: int):
        self._progress, self._last = progress, (0, total)

    def __call__(self, done: int, total: int) -> bool | None:
        """A step is done."""
        self._last = done, total
        return None if self._progress is None else self._progress(done, total)

    def between(self) -> None:
        """Raise Cancelled if the caller wants no more."""
        tell(self._progress, *self._last)


def tell(progress: Progress | None, done: int, total: int) -> None:
    """Tell the caller, and stop if the answer is False."""
    if progress is not None and progress(done, total) is False:
        raise Cancelled
