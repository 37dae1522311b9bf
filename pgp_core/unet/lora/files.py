"""LoRA files as they are found: safetensors, ``torch.save``'s, and folders as PEFT and diffusers save them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ...files.boundary import parsing
from ...files.json_format import loads
from ...files.weights import open_weights
from ..topology import KeyMap
from .reading import LoRA, read
from .settings import Settings, from_config, from_metadata

#: PEFT's configuration beside an adapter.
CONFIG = "adapter_config.json"
#: What a folder may call its LoRA, in the order in which they are looked for.
NAMES = tuple(f"{stem}.{end}" for stem in ("adapter_model", "pytorch_lora_weights") for end in ("safetensors", "bin"))
_LONGEST_CONFIG = 1 << 20


def load(path: Path, names: KeyMap | None = None) -> tuple[LoRA, Mapping[str, str]]:
    """A LoRA's layers and its file's metadata.

    Args:
        path: a file, or a folder with one of :data:`NAMES`. PEFT's configuration beside it is honoured.
        names: see :func:`.read`.

    Raises:
        CheckpointError: if there is none, it is damaged, or it is no LoRA for SDXL; see :func:`.read`.
    """
    path = file_of(path)
    with open_weights(path) as file, parsing(path.name, CheckpointError, "get it again"):
        # Views of the mapped file are no more once it is closed.
        weights = {k: file.read(k).clone() for k in file.shapes}
        metadata = dict(file.metadata)
    return read(weights, path.name, settings_of(path, metadata), names), metadata


def file_of(path: Path) -> Path:
    """The file that is meant by a folder; another path is itself.

    Raises:
        CheckpointError: if a folder has none.
    """
    if not path.is_dir():
        return path
    found = next((path / n for n in NAMES if (path / n).is_file()), None)
    if found is None:
        raise CheckpointError(f"{path} is a folder without {' or '.join(NAMES)}: give the LoRA's file")
    return found


def settings_of(path: Path, metadata: Mapping[str, str]) -> Settings:
    """What PEFT's configuration beside a file, else its metadata, says of its alphas.

    Raises:
        CheckpointError: if that is damaged, or of an adapter that is not known.
    """
    config = path.parent / CONFIG
    # Of PEFT's own files alone: a folder of LoRAs may hold someone's configuration.
    if path.stem != "adapter_model" or not config.is_file():
        return from_metadata(metadata, path.name)
    with parsing(f"{config.name} beside {path.name}", CheckpointError):
        if config.stat().st_size > _LONGEST_CONFIG:
            raise ValueError("it is too long")
        read_config: Any = loads(config.read_text(encoding="utf-8-sig"))
        if not isinstance(read_config, dict):
            raise TypeError("it is no object")
    return from_config(read_config, path.name)
