"""Which latents of a batch a run samples, where the batch is sampled a few at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Latents ``first`` to ``end`` of a batch of ``total``."""

    first: int
    end: int
    total: int

    @property
    def numbers(self) -> slice:
        """Of its latents, counted in the whole batch."""
        return slice(self.first, self.end)


_PART: ContextVar[Part | None] = ContextVar("pgp_diffsr_part", default=None)


def current_part(latents: int) -> Part:
    """What a run of ``latents`` latents samples: of the whole batch, or all that there is."""
    part = _PART.get()
    if part is None or part.end - part.first != latents:
        return Part(0, latents, latents)
    return part


@contextlib.contextmanager
def sampling_part(first: int, end: int, total: int) -> Iterator[None]:
    """While it lasts, runs sample latents ``first`` to ``end`` of ``total`` that were sampled before it."""
    outer = current_part(total)
    token = _PART.set(Part(outer.first + first, outer.first + end, outer.total))
    try:
        yield
    finally:
        _PART.reset(token)
