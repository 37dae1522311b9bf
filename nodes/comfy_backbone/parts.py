"""Which latents of a batch a run samples, where the batch is sampled a few at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_PART: ContextVar[tuple[int, int] | None] = ContextVar("pgp_diffsr_part", default=None)


def current_part() -> tuple[int, int] | None:
    """First and end of the latents that are sampled now, counted in the whole batch; None for all of them."""
    return _PART.get()


@contextlib.contextmanager
def sampling_part(first: int, end: int) -> Iterator[None]:
    """While it lasts, runs sample latents ``first`` to ``end`` of what was sampled before it."""
    outer = _PART.get()
    start = outer[0] if outer else 0
    token = _PART.set((start + first, start + end))
    try:
        yield
    finally:
        _PART.reset(token)
