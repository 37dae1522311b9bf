"""Pictures of 16 bits a channel, by libvips: Pillow has no mode for them but grey."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import PGPError, PictureError
from .picture import Metadata, Picture

_FIELDS = {"icc": "icc-profile-data", "exif": "exif-data", "xmp": "xmp-data"}
_PNG_COMMENT = "png-comment-"


def _vips() -> Any:
    try:
        import pyvips
    except (ImportError, OSError):
        raise PGPError('pictures of 16 bits need pyvips: pip install "pgp-diffsr[cli]"') from None
    return pyvips


def read(path: Path, frames: int = 1) -> Picture:
    """Read a PNG or TIFF of 16 bits, upright; CMYK becomes RGB.

    Raises:
        PictureError: if it cannot be read.
        PGPError: if libvips is not installed.
    """
    vips = _vips()
    try:
        image = vips.Image.new_from_file(str(path), fail_on="error")
        if image.format != "ushort":
            raise PictureError(f"{path} has channels of the type {image.format}: convert it to 8 or 16 bits")
        if image.width * image.height > 2 * (Image.MAX_IMAGE_PIXELS or 2**62):
            raise PictureError(f"{path} is too large to be opened: {image.width}x{image.height} pixels")
        image = image.autorot()
        if image.interpretation == "cmyk":
            image = image.icc_transform("srgb", depth=16, embedded=True)
        alpha = None
        if image.hasalpha():
            alpha = image[image.bands - 1]
            image = image[0] if image.bands == 2 else image[0:3]
        fields = set(image.get_fields())
        found = {k: bytes(image.get(name)) for k, name in _FIELDS.items() if name in fields}
        pixels = _array(image)
        text = {
            f.removeprefix(_PNG_COMMENT).split("-", 1)[-1]: str(image.get(f))
            for f in fields
            if f.startswith(_PNG_COMMENT)
        }
        dpi = (round(image.xres * 25.4, 3), round(image.yres * 25.4, 3))
        metadata = Metadata(**found, text=text, dpi=dpi if min(dpi) > 25.4 else None)
        return Picture(pixels, None if alpha is None else _array(alpha)[..., 0], metadata, frames)
    except vips.Error as e:
        raise PictureError(f"{path} cannot be read as a picture ({_line(e)})") from None


def write(picture: Picture, path: Path, name: str) -> None:
    """Write a PNG or TIFF of 16 bits.

    Args:
        name: of the format, "png" or "tiff", whatever the path ends in.

    Raises:
        OSError: if it cannot be written.
        PGPError: if libvips is not installed.
    """
    vips = _vips()
    planes = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha[..., None]]
    array = np.concatenate(planes, -1) if len(planes) > 1 else planes[0]
    space = "grey16" if picture.pixels.shape[-1] == 1 else "rgb16"
    meta = picture.metadata
    try:
        image = vips.Image.new_from_array(np.ascontiguousarray(array)).copy(interpretation=space)
        if meta.dpi:
            image = image.copy(xres=meta.dpi[0] / 25.4, yres=meta.dpi[1] / 25.4)
        for kind, field in _FIELDS.items():
            value = getattr(meta, kind)
            if value:
                image.set_type(vips.GValue.blob_type, field, value)
        for i, (key, value) in enumerate(meta.text.items()):
            image.set_type(vips.GValue.gstr_type, f"{_PNG_COMMENT}{i}-{key}", value)
        if name == "png":
            image.pngsave(str(path), keep="all")
        else:
            image.tiffsave(str(path), compression="deflate", predictor="horizontal", bigtiff=array.nbytes > 2**31)
    except vips.Error as e:
        raise OSError(_line(e)) from None


def _array(image: Any) -> Any:
    array = image.cast("ushort").numpy()
    return array[..., None] if array.ndim == 2 else array


def _line(e: Exception) -> str:
    return next((line.strip() for line in reversed(str(e).splitlines()) if line.strip()), type(e).__name__)
