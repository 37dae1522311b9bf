"""A bar for files that are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..progress import Progress


@contextmanager
def file_progress(name: str) -> Iterator[Progress]:
    """A bar on stderr, where that is a terminal; yields what to call with bytes done and in all."""
    from tqdm import tqdm

    from ..visible import visible

    with tqdm(desc=visible(name), unit="B", unit_scale=True, disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
