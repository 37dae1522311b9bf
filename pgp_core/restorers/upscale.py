"""The whole way of a picture: canvas, restoration, colour fix, exact size."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..errors import PGPError
from ..images import canvas, sizes
from ..images.color_fix import color_fix
from ..images.wrap import Wrap
from ..progress import Progress
from ..sampling.options import SampleOptions
from .restorer import Restorer


def upscale(
    restorer: Restorer,
    pictures: torch.Tensor,
    size: sizes.Size,
    options: SampleOptions | None = None,
    fix: str | None = None,
    progress: Progress | None = None,
    wrap: str = "none",
) -> torch.Tensor:
    """Enlarge and restore pictures; ComfyUI's shipped workflows do the same with their nodes.

    Args:
        pictures: ``(B, 3, H, W)`` RGB in [0, 1], or ``(B, 4, H, W)`` with alpha, which no colour is multiplied by. Each
            is restored by itself, with the same seed: what it becomes does not depend on the others.
        size: of the result.
        options, progress: see :meth:`pgp_core.restorers.restorer.Restorer.restore`.
        fix: one of :data:`pgp_core.choices.COLOR_FIXES`; by default the restorer's.
        wrap: one of :data:`pgp_core.choices.WRAPS`: along which axes the pictures repeat, so that the results do.

    Returns:
        ``(B, C, height, width)`` float32 on the CPU, in [0, 1], of exactly the size asked for; alpha is enlarged, and
        what is seen does not depend on the colours under what is transparent.

    Raises:
        PGPError: if the size is out of range.
        Cancelled: when ``progress`` returned False.
    """
    results, around = [], Wrap(wrap)
    if around:
        options = replace(restorer.recipe.options() if options is None else options, wrap=wrap)
    for picture in pictures:
        lq, width, height = canvas.canvas(picture[None], size, restorer.frame, around)
        rgb, alpha = lq[:, :3], lq[:, 3:].cpu() if lq.shape[1] == 4 else None
        restored = restorer.restore(rgb, options, progress)
        if not bool(restored.isfinite().all()):
            raise PGPError("the result is not finite: one of the model's files is damaged")
        # Before the frame is cut off, as the nodes do it: both look at the same pixels.
        fixed = color_fix(restored, rgb.cpu(), fix or restorer.recipe.color_fix, alpha=alpha, wrap=around)
        fixed = fixed if alpha is None else torch.cat([fixed, alpha], 1)
        results.append(canvas.uncanvas(fixed, width, height, around))
    return torch.cat(results)
