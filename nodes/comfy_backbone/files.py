"""Model files by core's reader; our errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import comfy.utils
import torch

from ...pgp_core.errors import CheckpointError
from ...pgp_core.weights_file import WeightsFile, open_weights


def read(path: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Core's reader, which keeps tensors on disk under dynamic VRAM; errors as ours."""
    if not os.path.isfile(path):
        raise CheckpointError(f"{path} is missing: install the pack again")
    try:
        sd, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    except Exception as e:
        raise CheckpointError(f"{os.path.basename(path)} is damaged or no model file ({e}): get it again") from None
    return sd, metadata or {}


@contextmanager
def opened(path: str) -> Iterator[WeightsFile]:
    """A file of weights: safetensors by core's reader, others mapped by ours (core's would read them whole)."""
    if not path.lower().endswith((".safetensors", ".sft")):
        with open_weights(path) as file:
            yield file
        return
    sd, metadata = read(path)
    yield WeightsFile(
        os.path.basename(path),
        {k: tuple(v.shape) for k, v in sd.items()},
        frozenset(k for k, v in sd.items() if v.is_floating_point()),
        sd.__getitem__,
        metadata,
    )
