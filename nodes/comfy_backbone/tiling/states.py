"""What other packs' patches keep from call to call, kept for each tile by itself.

A cache of the last step's result (EasyCache, DeepCache and their kin) is put on a MODEL as a patch that remembers. In
tiles it would remember one tile and answer with that for the next.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ....pgp_core.tiling import Tile
from .holders import Holder, holders

#: By how much features, or samples of them, are smaller than the latent.
_SCALES = (1, 2, 4, 8)


class TileStates:
    """The memory of the patches on a MODEL during one run of a sampler.

    What a patch has stored of a tile shows by tensors of the tile's size; then all that belongs to that patch is the
    tile's own, from the state that it had before the first tile. Otherwise only its whole numbers are, since it may
    count steps. What is set between calls, by whoever is called for the whole picture, holds for every tile.
    """

    def __init__(self) -> None:
        self._known: dict[int, Holder] = {}
        #: Before the first tile; nothing for what a call for a tile has made.
        self._first: dict[int, dict[Any, Any]] = {}
        self._of: dict[Tile, dict[int, dict[Any, Any]]] = {}
        self._left: dict[int, dict[Any, Any]] = {}
        #: Holders of patches that store something of a tile.
        self._storing: set[int] = set()
        #: With core's multi-GPU a MODEL is called from several threads, but a patch has one memory.
        self._lock = threading.RLock()

    @property
    def used(self) -> bool:
        """Whether there has been a tile."""
        return bool(self._of)

    @contextlib.contextmanager
    def call(self, roots: Sequence[Any]) -> Iterator[None]:
        """One call for the whole picture; in it, :meth:`of` for each tile.

        Args:
            roots: what there is: the network, and callables and objects of other packs.
        """
        with self._lock if len(roots) > 1 else contextlib.nullcontext():
            yield from self._called(roots)

    def _called(self, roots: Sequence[Any]) -> Iterator[None]:
        self._discover(roots)
        for i, before in self._left.items():
            self._take(self._known[i], before)
        try:
            yield
        finally:
            kept = set(self._first).union(*self._of.values())
            self._known = {i: h for i, h in self._known.items() if i in kept}
            self._storing &= kept
            # Behind the call it looks as if there had been one tile, the last.
            self._left = {i: self._marked(i) for i in self._known if i in self._first}

    @contextlib.contextmanager
    def of(self, tile: Tile, roots: Sequence[Any], shape: Sequence[int]) -> Iterator[Try]:
        """A call for a tile; where it fails, or is not kept, nothing of it is remembered.

        Args:
            shape: of the tile's latents.
        """
        self._enter(tile)
        self._discover(roots)
        attempt = Try(lambda: self._enter(tile))
        try:
            yield attempt
        except BaseException:
            self._enter(tile)
            raise
        if attempt.kept:
            self._keep(tile, roots, shape)
        else:
            self._enter(tile)

    def stored(self, shape: Sequence[int]) -> Iterator[tuple[Holder, Any]]:
        """Holders, and their slots, in which the last tile has left something of its own."""
        for i in self._storing:
            for k, v in self._known[i].read().items():
                if self._is_stored(i, k, v, shape):
                    yield self._known[i], k

    def close(self) -> None:
        """The end of a run: patches remember nothing of a tile, and have plain numbers again."""
        for i in self._storing & self._first.keys():
            self._known[i].write(self._first[i])
        for i, left in self._left.items():
            now = self._known[i].read()
            if any(isinstance(v, _Mark) and left.get(k) is v for k, v in now.items()):
                self._known[i].write({k: v.plain if isinstance(v, _Mark) else v for k, v in now.items()})

    def _discover(self, roots: Sequence[Any]) -> None:
        for root in roots:
            for i, holder in holders(root).items():
                if i not in self._known:
                    self._known[i], self._first[i] = holder, holder.read()

    def _enter(self, tile: Tile) -> None:
        own = self._of.get(tile, {})
        for i, holder in self._known.items():
            content = own.get(i, self._first.get(i))
            if content is None:
                continue
            if i in self._storing:
                holder.write(content)
            elif counts := {k: v for k, v in content.items() if _is_count(v)}:
                now = holder.read()
                counts = {k: v for k, v in counts.items() if _is_count(now.get(k)) and now[k] is not v}
                if counts:
                    holder.write({**now, **counts})

    def _keep(self, tile: Tile, roots: Sequence[Any], shape: Sequence[int]) -> None:
        before = self._of.get(tile, {})
        # What a call has made and dropped is forgotten.
        own = self._of[tile] = {i: content for i, content in before.items() if i in self._first}
        for root in roots:
            found = holders(root)
            self._known |= {i: h for i, h in found.items() if i not in self._known}
            own.update((i, h.read()) for i, h in found.items())
            if any(self._is_stored(i, k, v, shape) for i in found for k, v in own[i].items()):
                self._storing |= found.keys()

    def _is_stored(self, i: int, slot: Any, value: Any, shape: Sequence[int]) -> bool:
        return value is not self._first.get(i, {}).get(slot) and _is_of_tile(value, shape)

    def _take(self, holder: Holder, left: dict[Any, Any]) -> None:
        """What was set in a holder between two calls."""
        now = holder.read()
        gone = left.keys() - now.keys()
        new = {k: v for k, v in now.items() if k not in left or left[k] is not v}
        if not gone and not new:
            return
        i = id(holder.owner)
        for content in [self._first.get(i), *(own.get(i) for own in self._of.values())]:
            if content is None:
                continue
            if holder.ordered:
                content.clear()
                content.update(now)
            else:
                for k in gone:
                    content.pop(k, None)
                content.update(new)

    def _marked(self, i: int) -> dict[Any, Any]:
        """A holder's content, with marks in the place of flags and numbers that a tile may have of its own."""
        holder = self._known[i]
        now, first = holder.read(), self._first[i]
        whole = i in self._storing
        marks = {
            k: _Mark.of(v)
            for k, v in now.items()
            if type(v) in (int, bool) and (whole or (_is_count(v) and v is not first.get(k)))
        }
        if not marks:
            return now
        now |= marks
        holder.write(now)
        return now


class Try:
    """A call for a tile, which may be made again, or for something else than its result."""

    def __init__(self, restart: Callable[[], None]):
        self._restart = restart
        self.kept = True

    def again(self) -> None:
        """The state from before the call."""
        self._restart()


class _Mark(int):
    """A number or flag that is left behind a call. Where an equal one is set later, it is another object."""

    plain: int

    @classmethod
    def of(cls, value: int) -> _Mark:
        mark = cls(value)
        mark.plain = value
        return mark


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_of_tile(value: Any, shape: Sequence[int]) -> bool:
    """Whether a tensor has a position for each of a tile's, or of its features'."""
    if not isinstance(value, torch.Tensor) or value.ndim < 3:
        return False
    height, width = shape[-2:]
    sizes = {(-(-height // s), -(-width // s)) for s in _SCALES} | {(height // s, width // s) for s in _SCALES}
    last, tokens = tuple(value.shape[-2:]), {h * w for h, w in sizes}
    return last in sizes or tuple(value.shape[1:3]) in sizes or value.shape[-2] in tokens
