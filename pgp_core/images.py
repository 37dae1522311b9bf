"""Pictures from and to disk: RGB tensors, alpha kept apart, atomic writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from .atomic import replacing
from .canvas import resize
from .errors import PictureError


@dataclass
class Picture:
    """An opened picture, upright.

    Attributes:
        rgb: mode RGB.
        alpha: mode L, or None.
    """

    rgb: Image.Image
    alpha: Image.Image | None = None

    def canvas(self, width: int, height: int) -> torch.Tensor:
        """The RGB picture at a new size, ``(1, 3, height, width)`` float32 in [0, 1]."""
        array = np.asarray(resize(self.rgb, width, height))
        return torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 255


def open_picture(path: Path) -> Picture:
    """Read a picture, turn it upright after its EXIF, split alpha off.

    Raises:
        PictureError: if it is no picture that Pillow reads, damaged, or too large to be harmless.
    """
    try:
        with Image.open(path) as file:
            file.load()
            image = ImageOps.exif_transpose(file)
    except FileNotFoundError:
        raise PictureError(f"there is no file {path}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise PictureError(f"{path} cannot be read as a picture ({e})") from None
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Picture(image.convert("RGB"), image.getchannel("A"))
    return Picture(image.convert("RGB"))


def to_image(rgb: torch.Tensor, alpha: Image.Image | None = None) -> Image.Image:
    """``(3, H, W)`` in [0, 1] to 8 bits, rounded; alpha is enlarged to fit."""
    array = (rgb.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    if alpha is not None:
        image.putalpha(resize(alpha, image.width, image.height))
    return image


def save_picture(image: Image.Image, path: Path) -> None:
    """Write under a temporary name in the same folder, then rename.

    Raises:
        PictureError: if it cannot be written; nothing half-written stays.
    """
    try:
        with replacing(path) as temporary:
            image.save(temporary, format=Image.registered_extensions()[path.suffix.lower()])
    except (OSError, ValueError) as e:
        raise PictureError(f"{path} cannot be written: {e}") from None


def find_pictures(inputs: list[Path]) -> list[Path]:
    """Files as they are, folders as the pictures in them, by name.

    Raises:
        PictureError: if an input does not exist or a folder holds no picture.
    """
    known = {ext for ext, fmt in Image.registered_extensions().items() if fmt in Image.OPEN}
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in known)
            if not inside:
                raise PictureError(f"there is no picture in the folder {path}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise PictureError(f"there is no file or folder {path}")
    return found
