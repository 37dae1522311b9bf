"""Saving pictures as PNG, TIFF, JPEG or WebP, with what their file can hold of the input's metadata."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..atomic import replacing
from ..errors import PGPError, PictureError
from . import deep
from .picture import Picture

#: Name of a format to the suffix that its files get.
FORMATS = {"png": ".png", "tiff": ".tif", "jpeg": ".jpg", "webp": ".webp"}
#: Pixels a side that a format can hold.
_LIMIT = {"jpeg": 65500, "webp": 16383}


def save_picture(picture: Picture, path: Path, quality: int = 95, lossless: bool = False) -> None:
    """Write under a temporary name in the same folder, then rename. The suffix says the format.

    PNG and TIFF keep 16 bits and alpha. JPEG has neither: pictures are put on white. WebP has alpha.

    Args:
        quality: of JPEG and WebP, 1 to 100.
        lossless: WebP without loss.

    Raises:
        PictureError: if it cannot be written; nothing half-written stays.
    """
    name = _format(path)
    height, width = picture.pixels.shape[:2]
    if max(height, width) > _LIMIT.get(name, 2**31):
        raise PictureError(f"{path} cannot be written: {name} holds {_LIMIT[name]} pixels a side, not {width}x{height}")
    try:
        with replacing(path) as temporary:
            if picture.pixels.dtype == np.uint16 and name in ("png", "tiff"):
                deep.write(picture, temporary, name)
            else:
                _image(picture, name).save(temporary, name.upper(), **_options(picture, name, quality, lossless))
    except (OSError, ValueError) as e:
        raise PictureError(f"{path} cannot be written: {e}") from None


def _format(path: Path) -> str:
    known = {".jpeg": "jpeg", ".tiff": "tiff"} | {suffix: name for name, suffix in FORMATS.items()}
    try:
        return known[path.suffix.lower()]
    except KeyError:
        raise PGPError(f"{path}: results are written as {', '.join(FORMATS)}, not {path.suffix!r}") from None


def _image(picture: Picture, name: str) -> Image.Image:
    if picture.pixels.dtype == np.uint16:
        picture = replace(
            picture,
            pixels=_eight(picture.pixels),
            alpha=None if picture.alpha is None else _eight(picture.alpha),
        )
    image = Image.fromarray(picture.pixels[..., 0] if picture.pixels.shape[-1] == 1 else picture.pixels)
    if picture.alpha is None:
        return image
    image.putalpha(Image.fromarray(picture.alpha))
    if name != "jpeg":
        return image
    paper = Image.new(image.mode, image.size, "white")
    return Image.alpha_composite(paper.convert("RGBA"), image.convert("RGBA")).convert(image.mode.removesuffix("A"))


def _eight(levels: Any) -> Any:
    """16 bits to 8, rounded."""
    return ((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _options(picture: Picture, name: str, quality: int, lossless: bool) -> dict[str, Any]:
    meta = picture.metadata
    options: dict[str, Any] = {"icc_profile": meta.icc}
    if meta.exif:
        options["exif"] = meta.exif
    if meta.dpi and name != "webp":
        options["dpi"] = meta.dpi
    if name == "png":
        info = PngInfo()
        for key, value in meta.text.items():
            info.add_itxt(key, value) if not value.isascii() else info.add_text(key, value)
        if meta.xmp:
            info.add_itxt("XML:com.adobe.xmp", meta.xmp.decode("utf-8", "replace"))
        options["pnginfo"] = info
    elif meta.xmp and name in ("jpeg", "webp"):
        options["xmp"] = meta.xmp
    if name == "jpeg":
        options |= {"quality": quality, "subsampling": 0}
    elif name == "webp":
        options |= {"quality": quality, "lossless": lossless}
    elif name == "tiff":
        options["compression"] = "tiff_adobe_deflate"
    return options
