"""What other packs have put on a MODEL that is called for every tile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.patcher_extension import WrappersMP

from .holders import is_ours

#: Wrappers that are called for a tile; the others are called for the whole picture.
_WITHIN = (WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
#: Entries of a call's options that are core's.
_CORE_S = {"wrappers", "callbacks", "sigmas", "uuids", "cond_or_uncond"}


def patches_on(base: BaseModel | None, options: dict[str, Any], wrapper: Any) -> list[Any]:
    """The network, and callables and objects of other packs that act within a call of a MODEL.

    Args:
        base: a ``BaseModel``, or None.
        options: the call's ``transformer_options``.
        wrapper: the MODEL's function wrapper, or None.
    """
    found = [] if wrapper is None else [wrapper]
    for kind in _WITHIN:
        found += [w for ws in options.get("wrappers", {}).get(kind, {}).values() for w in ws]
    found += _leaves({k: v for k, v in options.items() if k not in _CORE_S})
    unet = getattr(base, "diffusion_model", None)
    if isinstance(unet, torch.nn.Module):
        found += [unet, *_on_modules(unet)]
    patcher = getattr(base, "current_patcher", None)
    found += [p for p in getattr(patcher, "object_patches", {}).values() if callable(p)]
    return [p for p in found if not is_ours(p)]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        if value is not None and not isinstance(value, (str, int, float, torch.Tensor)):
            yield value
        return
    for entry in value:
        yield from _leaves(entry)


def _on_modules(unet: torch.nn.Module) -> Iterator[Any]:
    """Hooks on its layers, and methods that were put in the place of their own."""
    for module in unet.modules():
        own = vars(module)
        yield from own["_forward_hooks"].values()
        yield from own["_forward_pre_hooks"].values()
        if "forward" in own:
            yield own["forward"]
