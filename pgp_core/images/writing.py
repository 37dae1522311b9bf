"""Saving pictures as PNG, TIFF, JPEG or WebP, with what their file can hold of the input's metadata.

Pixels come first; then each piece of metadata is put in by itself. What does not fit is left out and named, and never
costs the picture.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import PGPError, PictureError
from ..files.atomic import replacing
from ..files.boundary import first_line
from . import deep
from .dressing import Dressing
from .picture import Picture

#: Name of a format to the suffix that its files get.
FORMATS = {"png": ".png", "tiff": ".tif", "jpeg": ".jpg", "webp": ".webp"}
#: Pixels a side that a format can hold.
_LIMIT = {"jpeg": 65500, "webp": 16383}
#: Bytes of pixels from which a TIFF file gets 64-bit offsets.
_LARGE = 2**31


def save_picture(picture: Picture, path: Path, quality: int = 95, lossless: bool = False) -> list[str]:
    """Write under a temporary name in the same folder, then rename. The suffix says the format.

    PNG and TIFF keep 16 bits and alpha. JPEG has neither: pictures are put on white. WebP has alpha. EXIF and XMP get
    the picture's new size.

    Args:
        quality: of JPEG and WebP, 1 to 100.
        lossless: WebP without loss.

    Returns:
        lines for the user that say what had to be left out.

    Raises:
        PictureError: if it cannot be written; nothing half-written stays.
        PGPError: if there is no such format.
    """
    height, width = picture.pixels.shape[:2]
    name = check_size(path, width, height)
    dressing = Dressing(picture.metadata, width, height)
    dressing.lost += _not_held(picture, name)
    try:
        with replacing(path) as temporary:
            _write(picture, temporary, name, dressing, quality, lossless)
    except (PGPError, MemoryError) as e:
        raise PictureError(f"{path} cannot be written: {first_line(e)}") from None
    except Exception as e:
        # Whatever an encoder ran into.
        raise PictureError(f"{path} cannot be written: {e if isinstance(e, OSError) else first_line(e)}") from e
    return [f"left out: {'; '.join(dressing.lost)}"] if dressing.lost else []


def check_size(path: Path, width: int, height: int) -> str:
    """The format of a result, before it is computed.

    Raises:
        PictureError: if the format holds no picture of this size.
        PGPError: if there is no such format.
    """
    name = _format(path)
    if max(height, width) > _LIMIT.get(name, 2**31):
        raise PictureError(f"{path} cannot be written: {name} holds {_LIMIT[name]} pixels a side, not {width}x{height}")
    return name


def _not_held(picture: Picture, name: str) -> list[str]:
    """What of the pixels the format has no place for."""
    lost = []
    if picture.pixels.dtype == np.uint16 and name in ("jpeg", "webp"):
        lost.append(f"16 bits a channel ({name} holds 8)")
    if name == "jpeg" and picture.alpha is not None and picture.alpha.min() < picture.white:
        lost.append("transparency (jpeg has none: the picture lies on white)")
    return lost


def _write(picture: Picture, path: Path, name: str, dressing: Dressing, quality: int, lossless: bool) -> None:
    is_deep = picture.pixels.dtype == np.uint16 and name in ("png", "tiff")
    if name == "tiff":
        if is_deep:
            deep.write(picture, path, name)
        else:
            large = {"big_tiff": True} if picture.pixels.nbytes > _LARGE else {}
            _image(picture, name).save(path, "TIFF", compression="tiff_adobe_deflate", **large)
        dressing.tiff(path)
    elif name == "webp":
        _webp(_image(picture, name), path, dressing, quality, lossless)
    else:
        if is_deep:
            deep.write(picture, path, name)
            encoded = path.read_bytes()
        else:
            buffer = io.BytesIO()
            options = {"quality": quality, "subsampling": 0} | dressing.jfif() if name == "jpeg" else {}
            _image(picture, name).save(buffer, name.upper(), **options)
            encoded = buffer.getvalue()
        with path.open("wb") as file:
            file.writelines(dressing.png(encoded) if name == "png" else dressing.jpeg(encoded))


def _webp(image: Image.Image, path: Path, dressing: Dressing, quality: int, lossless: bool) -> None:
    # exact: libwebp changes colours under what is transparent otherwise.
    options: dict[str, Any] = {"quality": quality, "lossless": lossless, "exact": lossless}
    for metadata in (dressing.webp(), {}):
        try:
            # Pillow takes a profile and EXIF from the picture where none is given.
            image.save(path, "WEBP", **options, **{"icc_profile": b"", "exif": b"", "xmp": b"", **metadata})
            return
        except OSError:
            # The disk, perhaps.
            raise
        except Exception as e:
            if not metadata:
                raise
            dressing.lost.append(f"{', '.join(metadata)} ({first_line(e)})")


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
