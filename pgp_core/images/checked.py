"""Checks of pictures that other software hands over: their shape, and whether their numbers are finite."""

from __future__ import annotations

import torch

from ..errors import PGPError, PictureError
from ..progress import Say

#: How far beyond 0 and 1 a resampling or a decoder goes, which nobody needs to be told.
_OVERSHOOT = 0.05


def checked_pictures(
    image: torch.Tensor,
    who: str,
    say: Say,
    channels: tuple[int, ...] = (1, 3, 4),
    error: type[PGPError] = PictureError,
) -> torch.Tensor:
    """Pictures that can be worked on.

    Values beyond 0 and 1 are clipped, as no model here was made for them, and where that takes more than an overshoot
    it is said. NaN and infinity are an error: whatever came of them would be black, or worse.

    Args:
        image: ``(B, H, W, C)`` floats, ComfyUI's IMAGE.
        who: who asks, for messages.
        say: told in one line what is no error.
        channels: how many of them there may be.
        error: what is raised.

    Returns:
        ``(B, H, W, C)`` in [0, 1]; the same tensor where that is so already.

    Raises:
        PGPError: of the class given, if these are no pictures, or hold NaN or infinity.
    """
    names = {1: "grey", 3: "RGB", 4: "RGB with alpha"}
    if not isinstance(image, torch.Tensor) or image.ndim != 4 or not image.is_floating_point():
        shape = type(image).__name__
        if isinstance(image, torch.Tensor):
            shape = f"{str(image.dtype).removeprefix('torch.')} of shape {tuple(image.shape)}"
        raise error(f"{who}: an image is (pictures, height, width, channels) of floats, not {shape}")
    if image.shape[-1] not in channels:
        listed = ", ".join(f"{n} ({names[n]})" for n in channels)
        raise error(f"{who}: the image must be RGB or the like, with {listed} channels, not {image.shape[-1]}")
    if image.numel() == 0:
        raise error(f"{who}: the image is empty, {tuple(image.shape)} in pictures, height, width and channels")
    low, high = (torch.stack(ends) for ends in zip(*(torch.aminmax(p) for p in image), strict=True))
    # NaN is both the least and the greatest where there is one.
    bad = [i for i, fine in enumerate((low.isfinite() & high.isfinite()).tolist()) if not fine]
    if bad:
        which = "" if len(image) == 1 else f" in picture {bad[0] + 1} of {len(image)}"
        raise error(
            f"{who}: the image holds NaN or infinity{which}, so something before this overflowed; a VAE or a model "
            "does so in half precision (--fp32-vae, or weights of another dtype)"
        )
    least, most = float(low.min()), float(high.max())
    if least >= 0 and most <= 1:
        return image
    if least < -_OVERSHOOT or most > 1 + _OVERSHOOT:
        say(f"{who}: the image goes from {least:.3g} to {most:.3g}; what is beyond 0 and 1 is clipped")
    return image.clamp(0, 1)
