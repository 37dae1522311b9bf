"""Differentiable measures of how different two pictures look, by name.

``lpips`` is what the paper trains with; its VGG weights must be on this machine. ``haarpsi`` and ``ms-ssim`` need
no file. Names joined with ``+`` are averaged: a model trained on one measure alone learns what that one overlooks,
so nano, which HaarPSI judges, is trained on ``haarpsi+ms-ssim``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...errors import PGPError
from .haarpsi import haarpsi
from .ms_ssim import ms_ssim

#: ``measure(result, hq)``: two ``(B, 3, H, W)`` in [0, 1] to ``(B,)``, 0 for equal pictures.
Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: What may stand in a measure's name.
MEASURES = ("lpips", "haarpsi", "ms-ssim")


class Perceptual(torch.nn.Module):
    """The mean of some measures, in float32 also under autocast.

    Args:
        name: of :data:`MEASURES`, or several with ``+`` between them.
        vgg: file of the VGG weights that ``lpips`` needs; empty for the place where PyTorch keeps them.

    Raises:
        PGPError: for another name; for ``lpips``, if the library or the weights are missing.
    """

    def __init__(self, name: str, vgg: str = ""):
        super().__init__()
        self.names = tuple(part.strip() for part in name.split("+"))
        check_measure(name)
        self._measures: list[Measure] = []
        for part in self.names:
            if part == "lpips":
                from .lpips_vgg import LPIPS

                self.lpips = LPIPS(vgg)
                self._measures.append(self.lpips)
            else:
                self._measures.append({"haarpsi": haarpsi, "ms-ssim": ms_ssim}[part])

    def forward(self, result: torch.Tensor, hq: torch.Tensor) -> torch.Tensor:
        """How different they look.

        Args:
            result: ``(B, 3, H, W)``; what is outside of [0, 1] is cut off, as in a file.
            hq: the same in [0, 1].

        Returns:
            ``(B,)``, 0 for equal pictures.
        """
        with torch.autocast(result.device.type, enabled=False):
            a, b = result.float().clamp(0, 1), hq.float()
            return torch.stack([measure(a, b) for measure in self._measures]).mean(0)


def check_measure(name: str) -> None:
    """Whether there is such a measure.

    Raises:
        PGPError: saying which there are.
    """
    parts = [part.strip() for part in name.split("+")]
    wrong = next((p for p in parts if p not in MEASURES), None)
    if wrong is not None or len(set(parts)) < len(parts):
        raise PGPError(f'a perceptual measure is {", ".join(MEASURES)}, or several joined with "+", not {name!r}')
