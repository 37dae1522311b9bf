"""Opening pictures: Pillow, and libvips for those with 16 bits, which Pillow cuts down to 8."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import PictureError
from . import deep
from .picture import Metadata, Picture

_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339
_GREY = ("1", "L", "LA", "La")


def open_picture(path: Path) -> Picture:
    """Read a picture and turn it upright after its EXIF.

    Grey stays grey, 16 bits stay 16. Palettes become RGB. CMYK and Lab become sRGB by their ICC profile. RGB and
    grey keep their values and their profile.

    Raises:
        PictureError: if it is no picture that can be read, damaged, too large to be harmless, or in floating
            point.
    """
    try:
        with warnings.catch_warnings():
            # Large, but not as large as Pillow's limit, beyond which it raises.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                bits = _bits(file)
                if bits > 16 or file.mode == "F":
                    raise PictureError(f"{path} has {bits} bits a channel: convert it to 8 or 16 bits")
                if bits == 16:
                    return deep.read(path, getattr(file, "n_frames", 1))
                file.load()
                return _shallow(file, getattr(file, "n_frames", 1))
    except FileNotFoundError:
        raise PictureError(f"there is no file {path}") from None
    except UnidentifiedImageError as e:
        # Pillow knows no TIFF of grey and alpha with 16 bits.
        if _is_tiff(path):
            return deep.read(path)
        raise PictureError(f"{path} cannot be read as a picture ({e})") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as e:
        raise PictureError(
            f"{path} cannot be read as a picture ({str(e).splitlines()[0] if str(e) else e!r})"
        ) from None


def _bits(file: Any) -> int:
    """Bits a channel as they are in the file."""
    if file.format == "TIFF":
        bits = max(file.tag_v2.get(_BITS_PER_SAMPLE, (8,)))
        floating = 3 in np.atleast_1d(file.tag_v2.get(_SAMPLE_FORMAT, (1,)))
        return 32 if floating else bits
    if file.mode in ("F", "I"):
        return 16 if file.format == "PNG" else 32
    raw = [t[3][0] if isinstance(t[3], tuple) else t[3] for t in file.tile or ()]
    return 16 if file.mode.startswith("I;16") or any(";16" in str(r) for r in raw) else 8


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _shallow(file: Any, frames: int) -> Picture:
    image = ImageOps.exif_transpose(file)
    text = dict(getattr(file, "text", {}))
    text = {k: str(v) for k, v in text.items() if k != "XML:com.adobe.xmp"}
    xmp = image.info.get("xmp")
    metadata: dict[str, Any] = {
        "exif": image.getexif().tobytes() if len(image.getexif()) else None,
        "xmp": xmp.encode() if isinstance(xmp, str) else xmp,
        "text": text,
        "dpi": tuple(map(float, image.info["dpi"])) if "dpi" in image.info else None,
    }
    icc = image.info.get("icc_profile")
    alpha = None
    if image.has_transparency_data:
        grey = image.mode in _GREY
        image = image.convert("LA" if grey and image.mode != "1" else "RGBA")
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert("L" if grey else "RGB")
    elif image.mode in _GREY:
        image = image.convert("L")
    elif image.mode in ("CMYK", "LAB"):
        image, icc = _to_srgb(image, icc), None
    else:
        image = image.convert("RGB")
    if icc and _space(icc) != ("GRAY" if image.mode == "L" else "RGB"):
        # A profile for other channels than the picture has now: it would be wrong to keep.
        icc = None
    pixels = np.asarray(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return Picture(pixels, alpha, Metadata(icc=icc or None, **metadata), frames)


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    try:
        own: Any = ImageCms.ImageCmsProfile(io.BytesIO(icc)) if icc else None
        if image.mode == "LAB":
            own = own or ImageCms.createProfile("LAB")
        if own is not None:
            converted = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
            if converted is not None:
                return converted
    except (OSError, ImageCms.PyCMSError):
        # A damaged profile: the plain conversion is what is left.
        pass
    return image.convert("RGB")


def _space(icc: bytes) -> str:
    """Colour space of a profile: "RGB", "GRAY", "CMYK", or "" for a damaged one."""
    try:
        return str(ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space).strip()
    except (OSError, ImageCms.PyCMSError):
        return ""
