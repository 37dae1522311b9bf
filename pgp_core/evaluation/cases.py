"""What is restored and compared: a photograph, its LQ version, and the canvas that a model gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..images.resampling import resize
from ..training.degradation import fixed_recipe
from .photographs import photographs

#: What :func:`pgp_core.training.degradation.fixed_recipe` does, for the heads of tables.
RECIPE = "Gaussian blur radius 1.0, box to a quarter, noise 3/255, JPEG 80"


@dataclass(frozen=True)
class Case:
    """One photograph.

    Attributes:
        name: of the photograph.
        hq: RGB, W x H.
        lq: RGB, W/4 x H/4.
        lanczos: the LQ picture at HQ's size.
    """

    name: str
    hq: Image.Image
    lq: Image.Image
    lanczos: Image.Image

    @property
    def canvas(self) -> torch.Tensor:
        """``(1, 3, H, W)`` in [0, 1], as :meth:`pgp_core.restorers.nano.restorer.NanoRestorer.restore` wants it."""
        return torch.from_numpy(floats(self.lanczos)).permute(2, 0, 1)[None].float()


def cases(pictures: Mapping[str, Image.Image] | None = None) -> list[Case]:
    """Degrade pictures by the fixed recipe, always with the same noise.

    Args:
        pictures: RGB with sides divisible by 4; scikit-image's photographs by default.

    Raises:
        PGPError: see :func:`pgp_core.evaluation.photographs.photographs`.
    """
    found = []
    for name, hq in (photographs() if pictures is None else pictures).items():
        lq = fixed_recipe(hq)
        found.append(Case(name, hq, lq, resize(lq, *hq.size)))
    return found


def floats(picture: Image.Image) -> npt.NDArray[np.float64]:
    """``(H, W, 3)`` in [0, 1]."""
    return np.asarray(picture, np.float64) / 255


def picture_of(restored: torch.Tensor) -> Image.Image:
    """The first picture of ``(B, 3, H, W)`` in [0, 1] in 8 bits, as it would be saved: what is judged is what
    a user gets."""
    levels = restored[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(levels.cpu().numpy())
