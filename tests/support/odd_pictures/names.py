"""Good pictures with odd names, and twins."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from .scene import Odd, scene

NAMES = (
    "new\nline.png",
    "red \x1b[31m bell \x07.png",
    os.fsdecode(b"no utf-8 \xff\xfe.png"),
    "turned round \u202egnp.png",
    "-o.png",
    " .png",
    "per%cent {brace} $HOME `ls`.png",
    "日本語 😀.png",
    "a.b.c.png",
    "x" * 251 + ".png",
    "x" * 250 + "y.jpg",
)


def make(folder: Path) -> Iterator[Odd]:
    picture = scene()
    image = Image.fromarray(picture)

    def save(name: str, form: str = "PNG") -> None:
        image.save(folder / name, form)

    for name in NAMES:
        save(name, "JPEG" if name.endswith("jpg") else "PNG")
        yield Odd(name, picture)
    for name, form in (("twin.png", "PNG"), ("twin.bmp", "BMP"), ("twin.gif", "GIF")):
        save(name, form)
        yield Odd(name, picture, result="twin" if form == "PNG" else name)
    # On file systems that tell them apart.
    composed, apart = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    for first, second, plain in (("Case.png", "case.png", 0), (composed, apart, None)):
        save(first)
        if not (folder / second).exists():
            save(second)
            stems = [Path(first).stem, Path(second).stem]
            for i, name in enumerate((first, second)):
                yield Odd(name, picture, result=None if plain is None else (stems[i] if i == plain else name))
        else:
            yield Odd(first, picture)
    # Not the user's pictures: hidden, and what another system leaves behind.
    save(".hidden.png")
    (folder / "._twin.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (folder / "a folder.png").mkdir()
    (folder / "notes.txt").write_text("no picture, and not called as one")
