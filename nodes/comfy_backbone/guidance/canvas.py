"""Whether an LQ picture is that of a latent, and what is made of it where their sizes differ."""

from __future__ import annotations

import comfy.utils
import torch

from ....pgp_core.errors import GuidanceError
from ....pgp_core.images.sizes import same_proportions
from ....pgp_core.progress import Say


def canvas(pictures: torch.Tensor, height: int, width: int, position: int, say: Say) -> torch.Tensor:
    """LQ pictures on the canvas of a latent.

    What is larger by less than a latent position is cropped in the middle, as core's VAE Encode crops it; what is
    smaller by less stays as it is. What has the same proportions, but for rounding the latent's sides to positions, is
    resized.

    Args:
        pictures: ``(B, 3, H, W)``.
        height, width: of the latent, in pixels.
        position: pixels of a latent position.
        say: takes a line where the pictures are resized.

    Raises:
        GuidanceError: if the proportions differ, so that resizing would distort the picture.
    """
    have, want = tuple(pictures.shape[-2:]), (height, width)
    beyond = [h - w for h, w in zip(have, want, strict=True)]
    if all(-position < n < position for n in beyond):
        (top, left), (down, right) = (max(n, 0) // 2 for n in beyond), (min(*p) for p in zip(have, want, strict=True))
        return pictures[..., top : top + down, left : left + right]
    sizes = f"the picture is {have[1]} x {have[0]}, the latent {want[1]} x {want[0]} pixels"
    # Scales that round to the latent's sides.
    if not same_proportions(have, want, position):
        raise GuidanceError(
            f"Apply PGP-DiffSR: {sizes}, and resizing would distort it; connect the picture that was encoded, from "
            "PGP-DiffSR Canvas"
        )
    say(f"{sizes}; the picture is resized")
    return comfy.utils.common_upscale(pictures, width, height, "lanczos", "disabled")
