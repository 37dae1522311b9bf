"""LoRAs on a full-size model: in the UNet's weights or beside them, with what a one-step LoRA says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ...errors import CheckpointError
from ...files.json_format import loads
from ...progress import Say
from ...unet import lora
from ...unet.lora import files
from .family import S1_TIMESTEP

S1_KEY = "pgp.s1"


def merge_loras(unet: torch.nn.Module, paths: Sequence[Path], one_step: bool, say: Say) -> int:
    """Add LoRAs to the UNet's weights.

    Args:
        paths: files, or folders as PEFT saves them.

    Returns:
        the timestep that a one-step LoRA among them was distilled at, or :data:`S1_TIMESTEP`.

    Raises:
        CheckpointError: if one does not fit, or is for one step and ``one_step`` is False.
    """
    timestep = S1_TIMESTEP
    for path in paths:
        layers, metadata = files.load(path, lora.names_of(unet))
        told = _timestep(metadata, layers.source, one_step)
        timestep = timestep if told is None else told
        lora.merge(unet, layers, say=say)
    return timestep


def put_beside(unet: torch.nn.Module, path: Path, say: Say) -> lora.Beside:
    """A one-step LoRA beside the UNet's weights, so that it can be left out.

    Raises:
        CheckpointError: if it does not fit.
    """
    layers, metadata = files.load(path, lora.names_of(unet))
    _timestep(metadata, layers.source, True)
    return lora.Beside(unet, layers, say=say)


def _timestep(metadata: Mapping[str, str], name: str, one_step: bool) -> int | None:
    """The timestep of a LoRA that says that it is for one step."""
    text = metadata.get(S1_KEY)
    if text is None:
        return None
    if not one_step:
        raise CheckpointError(f"{name} makes a model work in one step: use --one-step, or leave it out")
    try:
        timestep = loads(text).get("timestep", S1_TIMESTEP)
        if not isinstance(timestep, int) or not 0 <= timestep < 1000:
            raise ValueError(f"timestep {timestep!r}")
    except Exception as e:
        raise CheckpointError(f'{name}: its metadata "{S1_KEY}" is wrong: {e}') from None
    return timestep
