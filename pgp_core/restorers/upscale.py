"""The whole way of a picture: canvas, restoration, colour fix, fidelity, exact size."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..errors import PGPError
from ..images import canvas, sizes
from ..images.color_fix import color_fix
from ..images.fidelity import check_fidelity, follow
from ..images.resampling import enlarge
from ..images.wrap import MARGIN, Wrap
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
    fidelity: float | None = None,
) -> torch.Tensor:
    """Enlarge and restore pictures; ComfyUI's shipped workflows do the same with their nodes.

    Args:
        pictures: ``(B, 3, H, W)`` RGB in [0, 1], or ``(B, 4, H, W)`` with alpha, which no colour is multiplied by. Each
            is restored by itself, with the same seed: what it becomes does not depend on the others.
        size: of the result.
        options, progress: see :meth:`pgp_core.restorers.restorer.Restorer.restore`.
        fix: one of :data:`pgp_core.choices.COLOR_FIXES`; by default the restorer's.
        wrap: one of :data:`pgp_core.choices.WRAPS`: along which axes the pictures repeat, so that the results do.
        fidelity: pixels of the result from which upwards detail comes from the pictures, see
            :mod:`pgp_core.images.fidelity`; 0 is off, by default the restorer's.

    Returns:
        ``(B, C, height, width)`` float32 on the CPU, in [0, 1], of exactly the size asked for; alpha is enlarged, and
        what is seen does not depend on the colours under what is transparent.

    Raises:
        PGPError: if the size or the fidelity is out of range.
        Cancelled: when ``progress`` returned False.
    """
    results, around = [], Wrap(wrap)
    if around:
        options = replace(restorer.recipe.options() if options is None else options, wrap=wrap)
    sigma = restorer.recipe.fidelity if fidelity is None else fidelity
    check_fidelity(sigma)
    for picture in pictures:
        lq, width, height = canvas.canvas(picture[None], size, restorer.frame, around)
        restored = restorer.restore(lq[:, :3], options, progress)
        if not bool(restored.isfinite().all()):
            raise PGPError("the result is not finite: one of the model's files is damaged")
        method, enlarges = fix or restorer.recipe.color_fix, restorer.frame.enlarges
        if enlarges == 1:
            # Before the frame is cut off, as the nodes do it: both look at the same pixels.
            fixed = _fixed(restored, lq.cpu(), method, sigma, around)
            results.append(canvas.uncanvas(fixed, width, height, around))
            continue
        # Nothing but the result has its size.
        result = around.around(canvas.uncanvas(restored, width, height, around, enlarges), MARGIN)
        lq = around.around(enlarge(picture[None], width, height, around), MARGIN)
        results.append(around.inner(_fixed(result, lq.cpu(), method, sigma, around), MARGIN))
    return torch.cat(results)


def _fixed(restored: torch.Tensor, lq: torch.Tensor, method: str, sigma: float, wrap: Wrap) -> torch.Tensor:
    """With the colours of the LQ picture, and what is coarse in it, and its alpha where it has one."""
    alpha = lq[:, 3:] if lq.shape[1] == 4 else None
    fixed = color_fix(restored, lq[:, :3], method, alpha=alpha, wrap=wrap)
    fixed = follow(fixed, lq[:, :3], sigma, alpha=alpha, wrap=wrap)
    return fixed if alpha is None else torch.cat([fixed, alpha], 1)
