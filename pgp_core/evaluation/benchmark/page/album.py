"""All pictures of a page, packed so that they fit on it together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from PIL import Image

from ....errors import PGPError
from .budget import LOWEST, Choice, choose, worse
from .pictures import Packed, Part, Source, pack, read

#: Pixels up to which a picture that is to be lossless is: a noisy one takes three bytes for each.
_SMALL = 256 * 256
#: Of pairs that are looked at before all are packed: how many, and pixels that may be in memory for it.
_SAMPLED, _SAMPLED_PIXELS = 12, 64_000_000
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
#: Pairs that are packed at once; Pillow leaves Python alone meanwhile.
_THREADS = 4

Sources = Mapping[str, Source]


@dataclass
class Album:
    """What was packed.

    Attributes:
        pictures: of each pair, by column; a column is missing where there is no picture.
        unread: of each pair, column to why its picture cannot be shown.
        quality: of WebP.
        left_out: pairs for whose pictures there was no room.
    """

    pictures: list[dict[str, Packed]]
    unread: list[dict[str, str]]
    quality: int = 0
    left_out: list[int] = field(default_factory=list)

    @property
    def cut(self) -> list[int]:
        """Pairs of which only the middle is shown."""
        return [n for n, pair in enumerate(self.pictures) if any(p.cut for p in pair.values())]

    @property
    def bytes(self) -> int:
        """Of all that was packed."""
        return sum(len(p.data) for pair in self.pictures for p in pair.values())


def make_album(pairs: Sequence[Sources], room: int, order: Sequence[int] | None = None) -> Album:
    """Pack the pictures of all pairs.

    Args:
        pairs: of each, column to what it shows.
        room: bytes for all together.
        order: numbers of pairs, those first that matter most: they have pictures if not all can.
    """
    longest, sampled = _look(pairs)
    known: dict[Choice, list[int]] = {}

    def sizes(choice: Choice) -> list[int]:
        if choice not in known:
            with ThreadPoolExecutor(_THREADS) as threads:
                packed = threads.map(partial(_packed, choice=choice), sampled)
                known[choice] = [sum(len(p.data) for p in pair.values()) for pair in packed]
        return known[choice]

    choice = choose(room, len(pairs), longest, sizes)
    album = _album(pairs, choice)
    for other in worse(choice, longest):
        if album.bytes <= room:
            break
        album = _album(pairs, other)
    _leave_out(album, room, order or range(len(pairs)))
    return album


def _look(pairs: Sequence[Sources]) -> tuple[int, list[dict[str, Image.Image]]]:
    """The longest side of any picture, and some pairs' pictures."""
    step = max(1, len(pairs) // _SAMPLED)
    longest, pixels = _longest(pairs), 0
    found: list[tuple[Sources, dict[str, Image.Image]]] = []
    for pair in pairs[step // 2 :: step]:
        images, _ = _images(pair)
        for image in images.values():
            longest = max(longest, *image.size)
        pixels += sum(i.width * i.height for i in images.values())
        if images and (not found or pixels <= _SAMPLED_PIXELS):
            found.append((pair, images))
    return longest, [{c: _marked(i, pair[c]) for c, i in images.items()} for pair, images in found]


def _longest(pairs: Sequence[Sources]) -> int:
    """By the files' first bytes; what they do not say is seen when pictures are read."""
    longest = 1
    for source in (s for pair in pairs for s in pair.values()):
        # Whatever is wrong with it is said where it is read.
        with suppress(Exception), Image.open(source.file, formats=_FORMATS) as image:
            longest = max(longest, *(source.enlarged or image.size))
    return longest


def _marked(image: Image.Image, source: Source) -> Image.Image:
    image.info["lossless"] = source.lossless
    return image


def _images(pair: Sources) -> tuple[dict[str, Image.Image], dict[str, str]]:
    images, unread = {}, {}
    for column, source in pair.items():
        try:
            images[column] = _marked(read(source), source)
        except PGPError as e:
            unread[column] = str(e)
    return images, unread


def _packed(images: Mapping[str, Image.Image], choice: Choice) -> dict[str, Packed]:
    """The pictures of one pair, the same place of each."""
    if not images:
        return {}
    sizes = [i.size for i in images.values()]
    largest, smallest = max(sizes), min(sizes)
    share = (min(1.0, choice.side / largest[0]), min(1.0, choice.side / largest[1]))
    part = Part.middle(smallest, share) if min(share) < 1 else Part()
    found = {}
    for column, image in images.items():
        small = image.width * image.height * share[0] * share[1] <= _SMALL
        exact = image.info["lossless"] and small and choice.quality > LOWEST
        found[column] = pack(image, None if exact else choice.quality, part)
    return found


def _album(pairs: Sequence[Sources], choice: Choice) -> Album:
    def one(pair: Sources) -> tuple[dict[str, Packed], dict[str, str]]:
        images, unread = _images(pair)
        return _packed(images, choice), unread

    with ThreadPoolExecutor(_THREADS) as threads:
        done = list(threads.map(one, pairs))
    album = Album([packed for packed, _ in done], [unread for _, unread in done], choice.quality)
    return album


def _leave_out(album: Album, room: int, order: Sequence[int]) -> None:
    for number in order:
        size = sum(len(p.data) for p in album.pictures[number].values())
        if size > room:
            album.pictures[number] = {}
            album.left_out.append(number)
        else:
            room -= size
