"""The whole way of a picture: canvas, restoration, colour fix, exact size."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch

from ..errors import PGPError
from ..images import canvas
from ..images.color_fix import color_fix
from ..images.wrap import Wrap
from ..progress import Progress
from ..sampling.euler import SampleOptions


class Pipeline(Protocol):
    """A model with everything around it: nano's, or one of full size."""

    @property
    def canvas_kind(self) -> str:
        """A key of :data:`pgp_core.images.canvas.MULTIPLE`."""

    def defaults(self) -> SampleOptions:
        """How it samples where nobody says."""

    def restore(
        self, canvas: torch.Tensor, options: SampleOptions | None = None, progress: Progress | None = None
    ) -> torch.Tensor:
        """``(B, 3, H, W)`` RGB in [0, 1] to the same on the CPU, restored."""


def upscale(
    pipeline: Pipeline,
    pictures: torch.Tensor,
    size: canvas.Size,
    options: SampleOptions | None = None,
    fix: str = "wavelet",
    progress: Progress | None = None,
    wrap: str = "none",
) -> torch.Tensor:
    """Enlarge and restore pictures; ComfyUI's shipped workflows do the same with their nodes.

    Args:
        pictures: ``(B, 3, H, W)`` RGB in [0, 1], or ``(B, 4, H, W)`` with alpha, which no colour is multiplied by. Each
            is restored by itself, with the same seed: what it becomes does not depend on the others.
        size: of the result.
        options, progress: see :meth:`pgp_core.restorers.nano.pipeline.NanoPipeline.restore` and
            :meth:`pgp_core.restorers.sdxl.pipeline.SDXLPipeline.restore`.
        fix: one of :data:`pgp_core.images.color_fix.METHODS`.
        wrap: one of :data:`pgp_core.images.wrap.WRAPS`: along which axes the pictures repeat, so that the results do.

    Returns:
        ``(B, C, height, width)`` float32 on the CPU, in [0, 1], of exactly the size asked for; alpha is enlarged, and
        what is seen does not depend on the colours under what is transparent.

    Raises:
        PGPError: if the size is out of range.
        Cancelled: when ``progress`` returned False.
    """
    results, around = [], Wrap(wrap)
    if around:
        # Only the pipeline knows what it does by default.
        options = replace(pipeline.defaults() if options is None else options, wrap=wrap)
    for picture in pictures:
        lq, width, height = canvas.canvas(picture[None], size, pipeline.canvas_kind, around)
        rgb, alpha = lq[:, :3], lq[:, 3:].cpu() if lq.shape[1] == 4 else None
        restored = pipeline.restore(rgb, options, progress)
        if not bool(restored.isfinite().all()):
            raise PGPError("the result is not finite: one of the model's files is damaged")
        # Before the frame is cut off, as the nodes do it: both look at the same pixels.
        fixed = color_fix(restored, rgb.cpu(), fix, alpha=alpha, wrap=around)
        fixed = fixed if alpha is None else torch.cat([fixed, alpha], 1)
        results.append(canvas.uncanvas(fixed, width, height, around))
    return torch.cat(results)
