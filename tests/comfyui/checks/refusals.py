"""Inputs that do not fit, and damaged files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch as replace

import comfy.model_patcher
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.pgp_core.guidance.module import Guidance, GuidanceSpec
from pgp_pack.pgp_core.restorers.nano import model as nano_files

from . import scene
from .raised import raised


def check_refusals(_out: Path) -> Any:
    nano = scene.Nano()
    picture = scene.pictures(1)

    def apply(model: Any, patch: Any, picture: torch.Tensor, start: float = 0.0, end: float = 1.0) -> Any:
        return comfy_backbone.apply_guidance(model, patch, picture, 1.0, start, end)

    foreign = comfy.model_patcher.ModelPatcher(torch.nn.Linear(2, 2), torch.device("cpu"), torch.device("cpu"))
    sdxl_guidance = SimpleNamespace(model=Guidance.fresh(GuidanceSpec(), device="meta"))
    other_unet = comfy.model_patcher.ModelPatcher(_NoUNet(), torch.device("cpu"), torch.device("cpu"))
    results = {
        "foreign patch": raised(lambda: apply(nano.model, foreign, picture)),
        "guided twice": raised(lambda: apply(nano.guided(picture), nano.patch, picture)),
        "other channels": raised(lambda: apply(nano.model, sdxl_guidance, picture)),
        "other architecture": raised(lambda: apply(other_unet, nano.patch, picture)),
        "end before start": raised(lambda: apply(nano.model, nano.patch, picture, 0.6, 0.4)),
        "grey picture": raised(lambda: apply(nano.model, nano.patch, picture[..., :1])),
    }
    files = (nano_files.UNET_FILE, nano_files.GUIDANCE_FILE, nano_files.CONTEXTS_FILE)
    for name in files:
        results[f"truncated {name}"] = raised(lambda name=name: _load_with(name, _truncate))
        results[f"missing {name}"] = raised(lambda name=name: _load_with(name, Path.unlink))
    results["damaged decoder"] = raised(lambda: _load_with(nano_files.DECODER_FILE, _nonsense))
    results["swapped files"] = raised(lambda: _load_with(nano_files.UNET_FILE, _other_file))
    return results


def _load_with(name: str, damage: Callable[[Path], Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "nano"
        shutil.copytree(nano_files.FOLDER, copy)
        damage(copy / name)
        with replace.object(nano_files, "FOLDER", copy):
            comfy_backbone.load_nano()


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _nonsense(file: Path) -> None:
    file.write_bytes(b"x" * 40)


def _other_file(file: Path) -> None:
    shutil.copy(file.with_name(nano_files.GUIDANCE_FILE), file)


class _NoUNet(torch.nn.Module):
    """A MODEL whose network is another kind than SDXL's."""

    def __init__(self) -> None:
        super().__init__()
        self.diffusion_model = torch.nn.Linear(2, 2)
