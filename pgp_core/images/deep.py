"""Pictures of 16 bits a channel, by libvips: Pillow has no mode for them but grey."""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import PictureError
from ..extras import library
from .ifd import Tag, laid_out
from .picture import Picture

Levels = npt.NDArray[Any]


def _vips() -> Any:
    pyvips = library("pyvips", "a picture of 16 bits", "pyvips", "cli")
    # It would give a file's former picture where another has taken its name.
    pyvips.cache_set_max(0)
    return pyvips


def read(source: Path | bytes, name: object, page: int = 0, colours: int = 0) -> tuple[Levels, list[Levels]]:
    """The colours of a PNG or TIFF, ``(H, W, 1 or 3)``, and its other channels; as stored, not turned.

    CMYK becomes sRGB by its profile.

    Args:
        name: of the file, for errors.
        colours: channels that are colours; 0 for all but alpha, as libvips sees it.

    Raises:
        PictureError: if its channels are of another type, or it is too large to be harmless.
        PGPError: if libvips is not installed.
        pyvips.Error: if it cannot be read.
    """
    vips = _vips()
    options: dict[str, Any] = {"fail_on": "error"} | ({"page": page} if page else {})
    if isinstance(source, bytes):
        image = vips.Image.new_from_buffer(source, "", **options)
    else:
        image = vips.Image.new_from_file(str(source), **options)
    if image.format not in ("uchar", "ushort"):
        raise PictureError(f"{name} has channels of the type {image.format}: convert it to 8 or 16 bits")
    if image.width * image.height > 2 * (Image.MAX_IMAGE_PIXELS or 2**62):
        raise PictureError(f"{name} is too large to be opened: {image.width}x{image.height} pixels")
    deep = image.format == "ushort"
    colours = colours or image.bands - image.hasalpha()
    extra = [image[i] for i in range(colours, image.bands)]
    if image.interpretation == "cmyk":
        image = _from_cmyk(image[0:4].copy(interpretation="cmyk"), deep)
    elif colours not in (1, 3):
        raise PictureError(f"{name} has {colours} channels of colour: convert it to RGB or grey")
    else:
        image = image[0] if colours == 1 else image[0:3]
    return _array(image, deep), [_array(channel, deep)[..., 0] for channel in extra]


@lru_cache(maxsize=1)
def divides() -> bool:
    """Whether this libvips divides colours by an alpha that they are multiplied by; older ones leave that to others."""
    tags = {0x100: 1, 0x101: 1, 0x102: 16, 0x103: 1, 0x106: 1, 0x111: 0, 0x115: 2, 0x116: 1, 0x117: 4, 0x152: 1}
    rows = {tag: Tag(3, struct.pack("<H", value)) for tag, value in tags.items()}
    rows[0x102] = Tag(3, struct.pack("<2H", 16, 16))
    directory = laid_out(rows, "<", 8)
    rows[0x111] = Tag(3, struct.pack("<H", 8 + len(directory)))
    one = b"II*\0\x08\0\0\0" + laid_out(rows, "<", 8) + struct.pack("<2H", 100, 32768)
    return int(_vips().Image.new_from_buffer(one, "").numpy().ravel()[0]) > 150


def _from_cmyk(image: Any, deep: bool) -> Any:
    if "icc-profile-data" in image.get_fields():
        return image.icc_transform("srgb", depth=16 if deep else 8, embedded=True)
    # As Pillow does it in 8 bits: ink over ink.
    white = 65535 if deep else 255
    return ((white - image[0:3]) * (white - image[3]) / white).rint().cast(image.format)


def write(picture: Picture, path: Path, name: str) -> None:
    """Write the pixels of a PNG or TIFF of 16 bits, and nothing else.

    Args:
        name: of the format, "png" or "tiff", whatever the path ends in.

    Raises:
        OSError: if it cannot be written.
        PGPError: if libvips is not installed.
    """
    vips = _vips()
    try:
        if name == "png":
            _image(vips, picture).pngsave(str(path), keep="none")
        else:
            _image(vips, picture).tiffsave(
                str(path),
                compression="deflate",
                predictor="horizontal",
                bigtiff=picture.pixels.nbytes > 2**31,
                keep="none",
            )
    except vips.Error as e:
        raise OSError(line(e)) from None


def _image(vips: Any, picture: Picture) -> Any:
    planes = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha[..., None]]
    array = np.concatenate(planes, -1) if len(planes) > 1 else planes[0]
    space = "grey16" if picture.pixels.shape[-1] == 1 else "rgb16"
    return vips.Image.new_from_array(np.ascontiguousarray(array)).copy(interpretation=space)


def _array(image: Any, deep: bool) -> Levels:
    array = image.cast("ushort" if deep else "uchar").numpy()
    return array[..., None] if array.ndim == 2 else array


def line(e: Exception) -> str:
    """The last line of libvips' error, which is the plainest."""
    return next((line.strip() for line in reversed(str(e).splitlines()) if line.strip()), type(e).__name__)
