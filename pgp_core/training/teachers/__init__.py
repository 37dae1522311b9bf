"""Upscalers that a one-step model learns texture from, and what it learns of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import torch

from ...errors import TrainingError
from ...images.gaussian import smoothed

#: What every teacher enlarges by.
SCALE = 4
#: The one that is known by name.
REAL_ESRGAN = "real-esrgan"


class Teacher(Protocol):
    """An upscaler.

    Attributes:
        name: what it is called.
        licence: of its weights.
        sha256: of its weights' file; empty where there is none.
    """

    @property
    def name(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def sha256(self) -> str: ...

    def __call__(self, lq: torch.Tensor) -> torch.Tensor:
        """``(B, 3, h, w)`` float32 in [0, 1], on the CPU, to ``(B, 3, 4 h, 4 w)``.

        Raises:
            TrainingError: if it cannot.
        """


def target(hq: torch.Tensor, taught: torch.Tensor, sigma: float) -> torch.Tensor:
    """``T + G(H - T)``: the teacher's texture on HQ's structure. Without gradient.

    Whatever the teacher gets wrong over more than a few pixels (colour, where an edge lies) is HQ's again; what is
    finer stays the teacher's, which a one-step model can learn as it follows from the LQ picture.

    Args:
        hq, taught: ``(..., 3, H, W)`` in [0, 1].
        sigma: standard deviation of the Gaussian in pixels, above 0; beyond the borders it sees the picture mirrored.

    Returns:
        the same shape, float32 in [0, 1].
    """
    with torch.no_grad():
        taught = taught.float()
        apart = (hq.float() - taught).flatten(0, -3)
        height, width = apart.shape[-2:]
        strips = smoothed(
            lambda index: apart.index_select(-2, index.to(apart.device)), height, width, sigma, strip=height
        )
        coarse = torch.cat([values for _, values in strips], -2)
        return (taught + coarse.view(taught.shape)).clamp(0, 1)


def open_teacher(model: str, path: Path, licence: str, device: torch.device, threads: int | None = None) -> Teacher:
    """The teacher that a configuration names.

    Args:
        model: ``real-esrgan``, or what ``path`` was made of: a file of an upscaler, or a folder of finished pictures.
        licence: of a file or a folder; they must have one.
        threads: of ncnn; None for PyTorch's.

    Raises:
        TrainingError: if it is not there, is none, needs a library, or has no licence.
    """
    if model == REAL_ESRGAN:
        from .real_esrgan import RealESRGAN

        return RealESRGAN(threads or torch.get_num_threads())
    if not path.exists():
        raise TrainingError(
            f"teacher.model: there is no {path}; it is {REAL_ESRGAN}, a file of an upscaler, or a folder of finished "
            "pictures"
        )
    if not licence:
        raise TrainingError(
            f"teacher.licence is missing: say under which licence {os.path.basename(path)} may be used, as the crops' "
            "file carries it"
        )
    if path.is_dir():
        from .finished import Finished

        return Finished(path, licence)
    from .through_spandrel import Upscaler

    return Upscaler(path, licence, device)
