"""Contact sheet of samples: LQ canvas and HQ side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from ...errors import PictureError
from ...files.atomic import replacing
from .loading import Samples

_GAP, _LINE, _LETTERS = 6, 20, 90
#: A page is no wider than this many pixels, unless it would have more rows than those.
_WIDEST, _ROWS = 2400, 40


def contact_sheet(samples: Samples, count: int, start: int = 0) -> Image.Image:
    """Pairs of the samples ``start`` to ``start + count - 1``, each with its number and its caption's first words.

    Raises:
        PGPError: what the samples raise.
    """
    side = samples.patch
    columns = max(1, min(count, _WIDEST // (2 * side + _GAP)), -(-count // _ROWS))
    rows = -(-count // columns)
    across, down = 2 * side + _GAP, side + _LINE
    page = Image.new("RGB", (columns * across - _GAP, rows * down), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    for i in range(count):
        sample = samples[start + i]
        left, top = i % columns * across, i // columns * down
        words = f"{start + i}  {sample.caption}".strip()
        words = words if len(words) <= _LETTERS else words[:_LETTERS].rsplit(" ", 1)[0] + " …"
        while len(words) > 1 and draw.textlength(words, font=font) > 2 * side:
            words = words[:-2] + "…"
        draw.text((left + 2, top + 1), words, fill="black", font=font)
        for n, picture in enumerate((sample.lq, sample.hq)):
            page.paste(_image(picture), (left + n * side, top + _LINE))
    return page


def save(page: Image.Image, path: Path) -> None:
    """Write a sheet; its format follows from the name.

    Raises:
        PictureError: if it cannot be written.
    """
    known = {ext for ext, fmt in Image.registered_extensions().items() if fmt in ("JPEG", "PNG")}
    if path.suffix.lower() not in known:
        raise PictureError(f"{path}: a sheet is written as .jpg or .png")
    try:
        with replacing(path) as temporary:
            page.save(temporary, Image.registered_extensions()[path.suffix.lower()], quality=92)
    except OSError as e:
        raise PictureError(f"{path} cannot be written ({e.strerror or e})") from None


def _image(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray(picture.mul(255).round().byte().permute(1, 2, 0).numpy())
