"""Pictures that any other program enlarged: a folder of them is a teacher too."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...errors import PictureError, TrainingError
from ...files.atomic import replacing
from ..samples.decoding import read_rgb
from . import SCALE


class Finished:
    """Finished pictures, found by what they were made of: each is called as :func:`file_name` calls its LQ picture.

    Args:
        folder: of PNG files.
        licence: of what made them.
    """

    sha256 = ""

    def __init__(self, folder: Path, licence: str):
        self.folder, self.licence = folder, licence

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def __call__(self, lq: torch.Tensor) -> torch.Tensor:
        """See :class:`pgp_core.training.teachers.Teacher`."""
        return torch.stack([self._one(picture) for picture in lq])

    def _one(self, lq: torch.Tensor) -> torch.Tensor:
        path = self.folder / file_name(lq)
        if not path.exists():
            raise TrainingError(
                f"{self.folder} has no {path.name}: write the LQ crops with --lq DIR, enlarge all of them by {SCALE}, "
                "and keep their names"
            )
        try:
            picture = np.asarray(read_rgb(path))
        except PictureError as e:
            raise TrainingError(f"{e}: make it again") from None
        wanted = tuple(SCALE * n for n in lq.shape[-2:])
        if picture.shape[:2] != wanted:
            raise TrainingError(
                f"{path} has {picture.shape[1]}x{picture.shape[0]} pixels, {wanted[1]}x{wanted[0]} were expected: "
                f"teachers enlarge by {SCALE}"
            )
        return torch.from_numpy(picture.copy()).permute(2, 0, 1).float().div_(255)


def eight_bits(picture: torch.Tensor) -> np.ndarray:
    """``(3, H, W)`` in [0, 1] as ``(H, W, 3)`` uint8."""
    array: np.ndarray = picture.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return array


def file_name(lq: torch.Tensor) -> str:
    """What an LQ crop is called, by what is in it: then no other crop's result can be taken for its own."""
    pixels = eight_bits(lq)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:20] + ".png"


def write_lq(folder: Path, lq: torch.Tensor) -> bool:
    """Write an LQ crop for another program, unless it is there; whether it was written.

    Raises:
        TrainingError: if it cannot be written.
    """
    path = folder / file_name(lq)
    if path.exists():
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            Image.fromarray(eight_bits(lq)).save(temporary, "PNG")
    except OSError as e:
        raise TrainingError(
            f"{folder} cannot be written to ({e.strerror or e}): make room, or choose another"
        ) from None
    return True
