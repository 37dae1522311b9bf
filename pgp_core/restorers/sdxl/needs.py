"""What a model on SDXL's UNet needs beside the UNet, and whether what is given has it. Names are read, no weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..given import Given

if TYPE_CHECKING:
    from ...files.weights import WeightsFile

BASE = "a VAE and text encoders of SDXL: --base DIR, or --vae FILE and --conditioning FILE"
VAE = "a VAE of SDXL: --vae FILE, or --base DIR or CHECKPOINT"
TEXT = "SDXL's text encoders, or what they made of a prompt: --base DIR as diffusers saves it, or --conditioning FILE"
NEGATIVE = "what SDXL's text encoders made of the negative prompt: --negative-conditioning FILE (not with --cfg 1)"


def missing(given: Given) -> tuple[str, ...]:
    """What is needed and not there, a line each."""
    found = []
    if given.vae is None and not any(has_vae(path) for path in (given.base, given.model) if path is not None):
        found.append(VAE)
    if not _has_encoders(given.base):
        if given.conditioning is None:
            found.append(TEXT)
        elif given.negative_conditioning is None and not given.one_step and given.cfg != 1:
            found.append(NEGATIVE)
    return tuple(found)


def has_vae(path: Path) -> bool:
    """Whether a file, or a folder as diffusers saves it, has a VAE."""
    from ...errors import PGPError
    from ...files import diffusers_folder
    from ...files.weights import open_weights

    if diffusers_folder.is_pipeline(path):
        return (path / "vae").is_dir()
    try:
        with open_weights(path) as file:
            return has_vae_in(file)
    except PGPError:
        return False


def has_vae_in(file: WeightsFile) -> bool:
    """Whether a file has a VAE, alone or beside a UNet."""
    from ...files.prefixes import find_home
    from ...files.what_it_is import VAE_HEADS

    return find_home(file.shapes, VAE_HEADS) is not None


def _has_encoders(base: Path | None) -> bool:
    from ...conditioning import prompts
    from ...errors import PGPError

    if base is None or not base.is_dir():
        return False
    try:
        prompts.check(base)
    except PGPError:
        return False
    return True
