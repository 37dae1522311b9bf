"""What a tile gets of a call's arguments."""

from __future__ import annotations

from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from ....pgp_core.errors import PGPError
from ....pgp_core.tiling import Tile

#: By how much a UNet's features are smaller than its latent where ControlNets meet them. A tile's start is a multiple
#: of the largest.
_SCALES = (1, 2, 4)


def cropped(c: dict[str, Any], tile: Tile) -> dict[str, Any]:
    """A tile's part of what core hands to a model beside the latent.

    Everything that a call changes is a copy, also where the tile is all of the latent: a call may be made again.

    Raises:
        PGPError: if a ControlNet's features cannot be cut.
    """
    part = {k: v if k in ("control", "transformer_options") else _crop(v, tile) for k, v in c.items()}
    if c.get("control") is not None:
        part["control"] = {k: _crop_control(v, tile) for k, v in c["control"].items()}
    options = {k: v for k, v in c.get("transformer_options", {}).items() if k != "pgp_groups"}
    # For wrappers of other packs. A compiled network would miss it in calls without tiles.
    if not _is_compiled(options):
        options["pgp_tile"] = tile
    part["transformer_options"] = options
    return part


def _is_compiled(options: dict[str, Any]) -> bool:
    return COMPILE_KEY in options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})


def _crop(value: Any, tile: Tile) -> Any:
    if isinstance(value, list):
        return [_crop(v, tile) for v in value]
    # Of three dimensions are sequences of tokens, which may happen to be as long as a latent is high.
    if isinstance(value, torch.Tensor) and value.ndim >= 4 and tuple(value.shape[-2:]) == tile.of:
        return tile.crop(value)
    return value


def _crop_control(value: Any, tile: Tile) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    # The UNet takes features from the end of the list.
    features = list(value)
    if tile.whole:
        return features
    for f in features:
        if f is not None and not _divides(f, tile.of):
            raise PGPError(
                f"PGP-DiffSR Tiling: a ControlNet's features of shape {tuple(f.shape)} cannot be cut into tiles of a "
                f"latent of {tile.of[1]} x {tile.of[0]}; leave the ControlNet out, or sample without tiles"
            )
    return [f if f is None else tile.crop(f) for f in features]


def _divides(f: torch.Tensor, whole: tuple[int, int]) -> bool:
    return f.ndim == 4 and any(tuple(f.shape[-2:]) == tuple(-(-n // s) for n in whole) for s in _SCALES)
