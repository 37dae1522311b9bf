"""Which tile a MODEL is called for, and what its phase exchange is to give it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from ...pgp_core.guidance.whole_phase import CanvasPhase
from ...pgp_core.tiling import Tile

# Not in the call's options alone: a compiled network takes every name in them for one that will always be there.
_NOW: ContextVar[tuple[Tile | None, CanvasPhase | None]] = ContextVar("pgp_diffsr_tile", default=(None, None))


def current_tile() -> Tile | None:
    """The tile; None where a MODEL is not called in tiles."""
    return _NOW.get()[0]


def current_phase() -> CanvasPhase | None:
    """What holds phases of the whole canvas; None without."""
    return _NOW.get()[1]


@contextlib.contextmanager
def calling(tile: Tile, phase: CanvasPhase | None = None) -> Iterator[None]:
    """While it lasts, the MODEL is called for this tile."""
    token = _NOW.set((tile, phase))
    try:
        yield
    finally:
        _NOW.reset(token)
