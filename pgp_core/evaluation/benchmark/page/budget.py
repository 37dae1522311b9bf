"""How much of each picture there is room for: the page stays small enough to be sent and opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

#: Bytes of the whole page.
MOST = 50_000_000
#: Of WebP, best first.
QUALITIES = (95, 92, 88, 84, 80, 75)
#: Where even a small part of every picture has no room at these.
LOWEST = 60
#: Longest side in pixels of what is taken of a picture, largest first; browsers decode the first with ease.
SIDES = (4096, 3072, 2048, 1536, 1024, 768, 512, 384, 256)
#: Share of the room that an estimate may fill: what is not measured may be larger.
_CAREFUL = 0.95


@dataclass(frozen=True)
class Choice:
    """How pictures are packed.

    Attributes:
        quality: of WebP.
        side: longest side in pixels of what is taken of a picture.
    """

    quality: int
    side: int


def choose(room: int, count: int, longest: int, sampled: Callable[[Choice], Sequence[int]]) -> Choice:
    """The best that fits by an estimate.

    Full detail of a part says more about a restorer than all of it made smaller, so pictures are cut, not reduced; and
    they are cut only where compression that one hardly sees does not make room.

    Args:
        room: bytes for all pictures.
        count: how many there are.
        longest: the longest side of any.
        sampled: bytes of some of them under a choice.
    """

    def fits(choice: Choice) -> bool:
        sizes = sampled(choice)
        return not sizes or sum(sizes) / len(sizes) * count <= room * _CAREFUL

    sides = _sides(longest)
    side = next((s for s in sides if fits(Choice(QUALITIES[-1], s))), sides[-1])
    quality = next((q for q in QUALITIES if fits(Choice(q, side))), LOWEST)
    return Choice(quality, side)


def worse(choice: Choice, longest: int) -> Iterator[Choice]:
    """What to try where a choice did not fit after all, the best first."""
    yield from (Choice(q, choice.side) for q in (*QUALITIES, LOWEST) if q < choice.quality)
    yield from (Choice(LOWEST, s) for s in _sides(longest) if s < choice.side)


def _sides(longest: int) -> list[int]:
    return [min(longest, SIDES[0]), *(s for s in SIDES[1:] if s < longest)]


def room_for_pictures(fixed: int, most: int = MOST) -> int:
    """Bytes of packed pictures for which there is room: on the page four characters stand for three of them.

    Args:
        fixed: bytes of all else on the page.
    """
    return max(0, (most - fixed) * 3 // 4)
