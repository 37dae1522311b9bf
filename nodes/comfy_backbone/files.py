"""Model files by core's reader; our errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.memory_management
import comfy.utils
import torch

from ...pgp_core.errors import CheckpointError
from ...pgp_core.files.boundary import first_line
from ...pgp_core.files.diffusers_folder import find_weights
from ...pgp_core.files.weights import FLOATS, WeightsFile, check_file, open_weights, together


def read(path: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Core's reader, which keeps tensors on disk under dynamic VRAM; errors as ours."""
    check_file(Path(path))
    name = os.path.basename(path)
    try:
        sd, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
        metadata = dict(metadata or {})
        # Under dynamic VRAM core reads headers itself, and lets everything through.
        if any(not isinstance(v, str) for v in metadata.values()):
            raise ValueError("its metadata must be texts")
    except Exception as e:
        why = first_line(e)
        raise CheckpointError(f"{name} is damaged or no model file ({why}): get it again") from None
    return sd, metadata


@contextmanager
def opened(path: str) -> Iterator[WeightsFile]:
    """A file of weights, or all shards of one, mapped by our reader, which touches nothing that is not asked for.

    Core's reader is needed for safetensors under dynamic VRAM, which streams weights from the file that core opened,
    and where the user forbids mapping files; it makes every tensor, which reads a little of each.
    """
    found = find_weights(Path(path))
    core = comfy.memory_management.aimdo_enabled or comfy.utils.DISABLE_MMAP
    if not core or not all(p.suffix.lower() in (".safetensors", ".sft") for p in found.files):
        with open_weights(path) as file:
            yield file
        return
    yield together([_by_core(str(p)) for p in found.files], found)


def _by_core(path: str) -> WeightsFile:
    sd, metadata = read(path)
    dtypes = {k: v.dtype for k, v in sd.items() if v.dtype in FLOATS}
    return WeightsFile(
        os.path.basename(path),
        {k: tuple(v.shape) for k, v in sd.items()},
        frozenset(dtypes),
        sd.__getitem__,
        metadata,
        dtypes=dtypes,
    )
