"""Files of nano's learned decoder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..files.boundary import parsing
from ..files.checkpoints import check_finite, check_same, read_safetensors, write_safetensors
from ..files.json_format import parse_metadata
from .decoder import DecoderShape, PixelDecoder

METADATA_KEY = "pgp.decoder"
KEY_PREFIX = "decoder."
FORMAT = 1
#: Beyond these a file is damaged, or none of a decoder that fits into nano's time.
_WIDEST, _DEEPEST = 512, 32


def write_decoder(
    path: str | os.PathLike[str],
    decoder: PixelDecoder,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a decoder.

    Args:
        dtype: of the file; by default the decoder's.
        metadata: what else the file says of itself.

    Raises:
        CheckpointError: if it cannot be written.
    """
    said = {"format": FORMAT, "input": "picture", "width": decoder.shape.width, "depth": decoder.shape.depth}
    tensors = {KEY_PREFIX + k: v.detach().cpu() for k, v in decoder.state_dict().items()}
    tensors = {k: v if dtype is None else v.to(dtype) for k, v in tensors.items()}
    write_safetensors(path, tensors, {METADATA_KEY: json.dumps(said), **(metadata or {})})


def read_shape(metadata: Mapping[str, str], source: str) -> DecoderShape:
    """How large a decoder is, as its file says.

    Raises:
        CheckpointError: if it is damaged, of a newer release, or wants to see more than a picture.
    """
    said = parse_metadata(metadata[METADATA_KEY], METADATA_KEY, source, CheckpointError)
    with parsing(f"{source}'s {METADATA_KEY}", CheckpointError, "get it again"):
        if said["format"] != FORMAT or said["input"] != "picture":
            raise CheckpointError(f"{source} is a decoder of a format that this release does not know: update")
        width, depth = said["width"], said["depth"]
        for name, number, low, high in (("width", width, 1, _WIDEST), ("depth", depth, 2, _DEEPEST)):
            if type(number) is not int or not low <= number <= high:
                raise ValueError(f"its {name} is {number!r}")
        return DecoderShape(width, depth)


def read_decoder_shape(path: Path) -> DecoderShape:
    """How large the decoder in a file is.

    Raises:
        CheckpointError: as :func:`read_decoder`.
    """
    # A file is a few kilobytes: what is damaged in it is said before anything large is read.
    return read_decoder(path).shape


def read_decoder(path: Path, operations: Any = torch.nn) -> PixelDecoder:
    """A decoder from its file, in float32 on the CPU, not to be trained.

    A file without metadata is read by its shapes.

    Raises:
        CheckpointError: if there is none, or it is damaged, holds something else, or no finite numbers.
    """
    tensors, metadata = read_safetensors(path)
    return of_tensors(tensors, metadata, path.name, operations)


def of_tensors(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], source: str, operations: Any = torch.nn
) -> PixelDecoder:
    """:func:`read_decoder` of what was read.

    Raises:
        CheckpointError: as there.
    """
    shape = read_shape(metadata, source) if METADATA_KEY in metadata else _shape_of(tensors, source)
    weights = {k.removeprefix(KEY_PREFIX): v for k, v in tensors.items()}
    decoder = PixelDecoder(shape, operations, device="meta", dtype=torch.float32)
    check_same({k: tuple(v.shape) for k, v in decoder.state_dict().items()}, weights, source)
    check_finite(weights, source)
    decoder.load_state_dict({k: v.to(torch.float32, copy=True) for k, v in weights.items()}, assign=True)
    return decoder.eval().requires_grad_(False)


def _shape_of(tensors: Mapping[str, torch.Tensor], source: str) -> DecoderShape:
    depth = sum(bool(re.fullmatch(re.escape(KEY_PREFIX) + r"convs\.\d+\.weight", k)) for k in tensors)
    first = tensors.get(f"{KEY_PREFIX}convs.0.weight")
    if first is None or first.dim() != 4 or not 2 <= depth <= _DEEPEST or not 1 <= first.shape[0] <= _WIDEST:
        raise CheckpointError(f"{source} holds no decoder of nano's: get it again")
    return DecoderShape(int(first.shape[0]), depth)
