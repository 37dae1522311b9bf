"""Putting the page together: one file, with all that it shows in it."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from PIL import Image

from ....errors import PictureError
from ....files.atomic import replacing
from ....images.formats import formats
from ...metrics import METRICS
from ..results import Results
from .album import Album, make_album
from .budget import MOST, room_for_pictures
from .data import page_data, sources

_HERE = Path(__file__).parent
#: Bytes of the words that are said of pictures once they are packed, a pair.
_WORDS = 600


def write_page(results: Results, path: Path, most: int = MOST) -> list[str]:
    """Write a benchmark as one HTML file that opens from disk.

    Args:
        results: whose files are read again; what cannot be read is named on the page.
        path: of the page; its folder is made if need be.
        most: bytes of the page. Pictures are compressed for it, then cut, at last left out, which the page says. Only
            what is no picture may take more.

    Returns:
        notes, a line each: what the page shows otherwise than the files are.

    Raises:
        PictureError: if it cannot be written; no half-written file stays.
    """
    data = page_data(results, path)
    parts = {name: (_HERE / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")}
    fixed = len(_json(data)) + sum(len(p.encode()) for p in parts.values()) + _WORDS * len(results.pairs)
    album = make_album(sources(results, _size), room_for_pictures(fixed, most), _order(results))
    notes = _say(data, album)
    text = _filled(parts, data, album)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(text.encode())
    except OSError as e:
        raise PictureError(f"{path} cannot be written: {e.strerror or e}") from None
    return notes


def _filled(parts: dict[str, str], data: dict[str, Any], album: Album) -> str:
    """The page's text. Whatever comes from files is in JSON or base64, where nothing is obeyed."""
    style, script = parts["page.css"], parts["page.js"]
    pictures = "\n".join(
        f'<script type="text/plain" id="{column}-{number}">{base64.b64encode(picture.data).decode()}</script>'
        for number, pair in enumerate(album.pictures)
        for column, picture in pair.items()
    )
    filled = {
        "{{policy}}": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "{{style}}": style,
        "{{data}}": _json(data),
        "{{script}}": script,
        "{{pictures}}": pictures,
    }
    before, text = "", parts["page.html"]
    # In the order in which they stand there: nothing that was filled in is looked at again.
    for mark, value in filled.items():
        start, _, text = text.partition(mark)
        before += start + value
    return before + text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: Any) -> str:
    """JSON in ASCII that no HTML parser takes for a tag."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _size(file: Path) -> tuple[int, int] | None:
    try:
        with Image.open(file, formats=formats()) as image:
            return image.size
    # Of a kind that Pillow does not read, or damaged: there is then no bicubic picture of it.
    except Exception:
        return None


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _order(results: Results) -> list[int]:
    """Numbers of pairs, those first on which a row is the worst by the first metric."""
    name = next((m for m in results.metrics if m not in results.missing), None)
    numbers = list(range(len(results.pairs)))
    if name is None:
        return numbers
    judged = METRICS[name]

    def worst(number: int) -> float:
        pair = results.pairs[number].name
        values = [row.scores.get(pair, {}).get(name) for row in results.rows]
        return max((judged.distance(v) for v in values if v is not None), default=float("-inf"))

    return sorted(numbers, key=worst, reverse=True)


def _say(data: dict[str, Any], album: Album) -> list[str]:
    """Tell data what its pictures are; and in a few lines the user."""
    for number, pair in enumerate(data["pairs"]):
        packed = album.pictures[number]
        # What is beside the pictures of a pair is scaled to the largest of them.
        pair["pictures"] = {c: [*p.size, p.alpha] for c, p in packed.items()}
        if any(p.cut for p in packed.values()):
            largest = max(packed.values(), key=lambda p: p.size)
            pair["cut"] = f"the middle {_by(largest.size)} of {_by(largest.full)}"
        pair["unread"] = album.unread[number]
    notes = []
    if any(album.pictures):
        notes.append(
            f"pictures on the page are compressed (WebP, quality {album.quality}): figures are of the originals"
        )
    if cut := len(album.cut):
        notes.append(f"of {cut} of {len(album.pictures)} pictures the page shows the middle only")
    if album.left_out:
        notes.append(f"{len(album.left_out)} of {len(album.pictures)} pictures have no room on the page, the best ones")
    if unread := sum(map(len, album.unread)):
        notes.append(f"{unread} {'file' if unread == 1 else 'files'} cannot be shown")
    data["notes"] = notes
    return notes
