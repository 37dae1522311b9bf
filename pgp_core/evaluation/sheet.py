"""Contact sheet: pictures side by side, for looking at."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont

GAP, HEAD = 4, 22


def sheet(columns: Mapping[str, Mapping[str, Image.Image]]) -> Image.Image:
    """Lay pictures out: one column per label, one row per name, black on white.

    Args:
        columns: label to name to RGB picture; all columns have the same names. The first column's pictures
            give the rows' sizes; smaller ones (LQ) are enlarged to it by repeating pixels.
    """
    first = next(iter(columns.values()))
    width = max(p.width for p in first.values())
    tops, y = {}, HEAD
    for name, picture in first.items():
        tops[name] = y
        y += picture.height + GAP
    page = Image.new("RGB", (len(columns) * (width + GAP) - GAP, y - GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    for i, (label, pictures) in enumerate(columns.items()):
        x = i * (width + GAP)
        draw.text((x + 2, 2), label, fill="black", font=font)
        for name, picture in pictures.items():
            same = picture.size == first[name].size
            page.paste(picture if same else picture.resize(first[name].size, Image.Resampling.NEAREST), (x, tops[name]))
    return page
