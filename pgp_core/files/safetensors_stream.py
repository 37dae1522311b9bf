"""Writing safetensors tensor by tensor: the library's own writer takes them all at once, and copies them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ..errors import CheckpointError
from .finite import is_finite, not_finite
from .weights import FLOATS

#: Bytes; the library's own limit, beyond which it refuses a file.
LARGEST_HEADER = 100_000_000


def storable(text: str) -> bool:
    """Whether a file can hold a text: half of a surrogate pair is none, and a file with one is read by nobody."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_streaming(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype | Mapping[str, torch.dtype],
    read: Callable[[str], torch.Tensor],
    metadata: Mapping[str, str],
    source: str = "this model",
) -> None:
    """Write a file whose tensors are asked for one at a time and need never be together in memory.

    Args:
        path: written in place; wrap it in :func:`pgp_core.files.atomic.replacing`.
        shapes: names in the order in which they are written.
        dtype: of all tensors, or of each; one of :data:`pgp_core.files.weights.FLOATS`.
        read: gives a tensor of the shape promised; it is converted.
        source: what to call what is read, in errors.

    Raises:
        OSError: if it cannot be written.
        CheckpointError: if metadata and names are no text, or more than readers take; if a tensor holds NaN or
            infinity, or too large numbers for its type.
    """
    texts = [*shapes, *metadata, *metadata.values()]
    if not all(isinstance(t, str) and storable(t) for t in texts):
        raise CheckpointError(f"{path.name}: its metadata or its names hold half of a surrogate pair, which is no text")
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    dtypes = dtype if isinstance(dtype, Mapping) else dict.fromkeys(shapes, dtype)
    for name, shape in shapes.items():
        size = math.prod(shape) * dtypes[name].itemsize
        header[name] = {"dtype": FLOATS[dtypes[name]], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    # The format aligns the data to 8 bytes with spaces.
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise CheckpointError(f"a header of {len(text)} bytes is more than readers of safetensors take: shorten it")
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, shape in shapes.items():
            before = read(name)
            tensor = before.to(dtypes[name]).contiguous()
            if tuple(tensor.shape) != tuple(shape):
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, {tuple(shape)} was promised")
            if not is_finite(tensor):
                raise CheckpointError(not_finite(source, name, before, dtypes[name]))
            if tensor.numel():
                file.write(tensor.flatten().view(torch.uint8).numpy().data)
