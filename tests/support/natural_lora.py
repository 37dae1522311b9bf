"""A copy of nano with a second S1 LoRA, of drawn weights, as a natural one will lie there."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from pgp_core.files.checkpoints import read_safetensors, write_safetensors
from pgp_core.restorers.nano import model as nano
from pgp_core.restorers.nano.natural import DEFAULT_KEY


def drawn(seed: int = 0) -> dict[str, torch.Tensor]:
    """The shipped S1 LoRA, each matrix moved by a few percent of its own spread: small, and it changes every layer."""
    generator = torch.Generator().manual_seed(seed)
    s1, _ = read_safetensors(nano.FOLDER / nano.S1_FILE)

    def moved(key: str, value: torch.Tensor) -> torch.Tensor:
        if key.endswith(".alpha"):
            return value
        noise = torch.randn(value.shape, generator=generator)
        return (value.float() + 0.05 * float(value.float().std()) * noise).to(value.dtype)

    return {k: moved(k, v) for k, v in s1.items()}


def write(path: Path, default: str | None = None) -> Path:
    """The file, with what it says of its default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {} if default is None else {DEFAULT_KEY: default}
    write_safetensors(path, drawn(), {"pgp.s1": '{"timestep": 999, "rank": 16, "topology": "pgp-nano"}', **said})
    return path


def folder(tmp_path: Path, default: str | None = None) -> Path:
    """Nano's files with the second LoRA beside them."""
    copied = tmp_path / "nano"
    shutil.copytree(nano.FOLDER, copied)
    write(copied / nano.NATURAL_FILE, default)
    return copied
