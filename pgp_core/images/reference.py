"""What a picture is compared with or follows: another one of its size."""

from __future__ import annotations

import torch

from ..errors import PGPError


def check_reference(pictures: torch.Tensor, reference: torch.Tensor, alpha: torch.Tensor | None, who: str) -> None:
    """Whether they go together.

    Args:
        pictures: ``(B, C, H, W)``.
        reference: should be ``(B or 1, C, H, W)``.
        alpha: should be ``(B or 1, 1, H, W)``, if there is one.
        who: needs them: the beginning of the error's sentence.

    Raises:
        PGPError: naming the shapes.
    """
    if pictures.shape[1:] != reference.shape[1:] or len(reference) not in (1, len(pictures)):
        raise PGPError(
            f"{who} needs a reference of the picture's size: {tuple(pictures.shape)} and "
            f"{tuple(reference.shape)} (batch, channels, height, width) differ"
        )
    if alpha is not None and (alpha.shape[-2:] != pictures.shape[-2:] or len(alpha) not in (1, len(pictures))):
        raise PGPError(
            f"{who} needs an alpha of the picture's size: {tuple(pictures.shape)} and {tuple(alpha.shape)} "
            "(batch, channels, height, width) differ"
        )
