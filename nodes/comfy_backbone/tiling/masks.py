"""Masks over the whole picture, by which patches of other packs' say what lies where.

Attention sees a sequence of positions, and such a patch scales its mask to however many there are: in tiles the whole
mask would be laid over each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ....pgp_core.errors import PGPError
from .. import left_behind
from .holders import holders

#: A mask with fewer rows or columns is one over tokens, or over conditionings.
_LEAST = 8


def check_masks(patches: Iterable[Any], without: dict[int, Any]) -> None:
    """Whether tiles go with what other packs have put on a MODEL.

    A mask is known by its name, since its size need not be the picture's. What a patch makes up from the shape that it
    sees cannot be known at all. A mask that is the same everywhere is none.

    Args:
        without: by their ids, patches that are known to hold no mask; the others are added.

    Raises:
        PGPError: that names the patch which holds one.
    """
    for patch in patches:
        if id(patch) in without:
            continue
        for holder in holders(patch).values():
            for slot, value in holder.read().items():
                if "mask" in str(holder.name or slot).lower() and (mask := _mask(value)) is not None:
                    height, width = mask.shape[-2:]
                    raise PGPError(
                        f"PGP-DiffSR Tiling: {left_behind.label(patch)} holds a mask of {width} x {height} for the "
                        "whole picture, and would lay all of it over each tile; take its mask out, or sample without "
                        "tiles"
                    )
        without[id(patch)] = patch


def _mask(value: Any) -> torch.Tensor | None:
    return next((t for t in _tensors(value) if _differs(t)), None)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _tensors(entry)


def _differs(mask: torch.Tensor) -> bool:
    """Whether it has rows and columns, which are not all the same."""
    if not 2 <= mask.ndim <= 5 or mask.is_meta or min(mask.shape[-2:]) < _LEAST:
        return False
    return bool((mask != mask[..., :1, :1]).any())
