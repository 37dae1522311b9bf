"""CONDITIONING in ComfyUI's folders: names, saving, loading."""

from __future__ import annotations

import os
from typing import Any

import comfy.model_management as mm
import folder_paths
import torch
from comfy.cli_args import args

from ...pgp_core.conditioning import entries as conditioning
from ...pgp_core.errors import ConditioningError
from ...pgp_core.files.checkpoints import sha256
from . import folders
from .saving import new_file, numbered, relative_to_output


def conditioning_names() -> list[str]:
    """Files for the loader's list."""
    return folders.files(folders.CONDITIONING, folders.CONDITIONING_EXTENSION)


def save_conditioning(entries: Any, filename_prefix: str, prompt: str) -> str:
    """Write below ComfyUI's output folder, with core's numbering.

    Returns:
        the file's name, from the output folder on, with forward slashes.

    Raises:
        PGPError: if the conditioning cannot be kept in a file, the prefix leads out of the output folder, or the file
            cannot be written.
    """
    path = numbered(filename_prefix, folders.CONDITIONING_EXTENSION, ConditioningError)
    # --disable-metadata: core writes no prompts either.
    with new_file(path, ConditioningError):
        conditioning.save(path, entries, "" if args.disable_metadata else prompt)
    return relative_to_output(path).replace(os.sep, "/")


def is_listed(name: str) -> bool:
    """Whether a file of this name in the output folder is in the loader's list."""
    return name.startswith(f"{folders.CONDITIONING}/")


def load_conditioning(name: str) -> list[list[Any]]:
    """A CONDITIONING, where text encode nodes leave theirs.

    Raises:
        PGPError: if there is no such file, or it holds no CONDITIONING.
    """
    device = mm.intermediate_device()

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, torch.Tensor) else value

    entries = conditioning.load(_path(name)).entries
    return [[moved(context), {k: moved(v) for k, v in options.items()}] for context, options in entries]


def conditioning_fingerprint(name: str) -> str:
    """Hash of a file's content; empty if there is none, so that loading says so."""
    try:
        return sha256(_path(name))
    except (ConditioningError, OSError):
        return ""


def _path(name: str) -> str:
    path = folder_paths.get_full_path(folders.CONDITIONING, name)
    if path is None:
        raise ConditioningError(f"there is no conditioning file {name!r}: refresh the list (R) and choose another")
    return str(path)
