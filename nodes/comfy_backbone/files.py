"""Model files by core's reader; our errors."""

from __future__ import annotations

import os

import comfy.utils
import torch

from ...pgp_core.errors import CheckpointError


def read(path: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Core's reader, which keeps tensors on disk under dynamic VRAM; errors as ours."""
    if not os.path.isfile(path):
        raise CheckpointError(f"{path} is missing: install the pack again")
    try:
        sd, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    except Exception as e:
        raise CheckpointError(f"{os.path.basename(path)} is damaged or no model file ({e}): get it again") from None
    return sd, metadata or {}
