"""Damaged and foreign model files, some 400 of them, made from five good ones; every run makes the same.

Needs torch and the standard library alone, so that ComfyUI's Python makes them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .files import BASES, BIN, GUIDANCE, NANO, TWIN, UNET, Mutation, Raw
from .of_bytes import damaged_bytes
from .of_metadata import metadata
from .of_pickles import pickled
from .of_safetensors import headers, tensors

__all__ = ["BASES", "BIN", "GUIDANCE", "NANO", "TWIN", "UNET", "Mutation", "mutations", "remember_readings"]


def mutations(folder: Path, seed: int = 0) -> Iterator[Mutation]:
    """All of them. ``folder`` holds :data:`BASES`."""
    # What is read alike is not damaged alike again: the twin shows diffusers' names, nano another topology.
    yield from damaged_bytes(BIN, (folder / BIN).read_bytes(), seed)
    yield from pickled(torch.load(folder / BIN, weights_only=True), seed)
    for base in (TWIN, UNET, GUIDANCE, NANO):
        raw = Raw.read(folder / base)
        if base in (UNET, GUIDANCE):
            yield from damaged_bytes(base, (folder / base).read_bytes(), seed)
            yield from headers(base, raw)
        if base != NANO:
            yield from (m for m in tensors(base, raw, seed) if base != TWIN or _of_names(m.name))
        if base != TWIN:
            yield from metadata(base, raw)


def remember_readings(setattr_: Callable[[Any, str, Any], Any], weights_file: Any) -> None:
    """Let :mod:`pgp_core.files.weights` unpickle a file once, however often it is opened in a row; errors are not kept.

    Each mutation must be a new file: what was read stays mapped.
    """
    read, last = weights_file._open_torch, dict[str, Any]()

    def once(path: Path) -> Any:
        key = path, path.stat().st_ino, path.stat().st_mtime_ns
        if last.get("key") != key:
            last.clear()
            last.update(file=read(path), key=key)
        return last["file"]

    setattr_(weights_file, "_open_torch", once)


def _of_names(name: str) -> bool:
    """Whether it is names that are changed."""
    return any(word in name for word in ("number", "key", "no ", "without", "renamed", "block", "stack", "prefixed"))
