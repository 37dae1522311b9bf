"""Saving a MODEL whose graph came from a stranger, and while another process saves."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import folder_paths
import pgp_pack.nodes.comfy_backbone.saving as saving
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.pgp_core.files.leftovers import temporary_name
from pgp_pack.pgp_core.files.locks import lock_file, locked
from safetensors import safe_open

from . import scene
from .raised import raised

#: What a workflow may bring; see ``saved_files.WORKFLOW`` in the test.
LOOP: dict[str, Any] = {}
LOOP["itself"] = LOOP


def check_saved_files(out: Path) -> Any:
    folder_paths.set_output_directory(str(out / "output"))
    nano = scene.Nano()
    model = nano.model
    workflow = {
        "workflow": {"nodes": [{"title": "half a pair \ud83d, a whole one 😀"}]},
        "pgp.plan": {"format": "another"},
        "pgp.model": {"prediction": "sample"},
        "PGP.model": 1,
        "modelspec.title": "mine",
        "format": "tf",
        "__metadata__": {"x": 1},
        "half \ud83d": 1,
        "loop": LOOP,
        "a tensor": torch.zeros(1),
        "large": "x" * (17 << 20),
        "small": [1, 2.5, None, "é"],
    }
    with _logged() as lines:
        path = comfy_backbone.save_unet(model, "stranger", {"1": {"class_type": "X"}}, workflow)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    loaded = comfy_backbone.load_unet(str(path), {})
    results: dict[str, Any] = {
        "metadata": metadata,
        "said": lines,
        "loads": type(loaded.model).__name__ == type(model.model).__name__,
        "no dict": [_metadata(comfy_backbone.save_unet(model, "other", None, x)) for x in (None, [1], "text")],
        "surrogate prefix": raised(lambda: comfy_backbone.save_unet(model, "half \ud83d")),
    }
    following = saving.numbered("stranger", ".safetensors", ValueError)
    with locked(following):
        results["locked"] = raised(lambda: comfy_backbone.save_unet(model, "stranger"))
    results["left"] = sorted(p.name for p in (out / "output").iterdir())
    return results


def check_names_that_no_list_offers(out: Path) -> Any:
    """Core's lists of models and pictures, with what a killed process leaves in their folders."""
    folder = out / "listed"
    folder.mkdir(parents=True)
    left = [temporary_name(), lock_file(folder / "model.safetensors").name, lock_file(folder, folder=True).name]
    for name in left:
        (folder / name).write_bytes(b"half")
    kinds = sorted(folder_paths.folder_names_and_paths)
    offered = {}
    for kind in kinds:
        _, extensions = folder_paths.folder_names_and_paths[kind]
        # A kind without endings takes every file: it is for configurations and folders.
        if extensions:
            offered[kind] = folder_paths.filter_files_extensions(left, extensions)
    pictures = folder_paths.filter_files_content_types(left, ["image", "video", "audio", "model"])
    return {"left": left, "offered": offered, "pictures": pictures}


class _logged:
    """Warnings of the pack, as texts."""

    def __enter__(self) -> list[str]:
        self.lines: list[str] = []
        self.handler = logging.Handler()
        self.handler.emit = lambda record: self.lines.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("pgp_pack").addHandler(self.handler)
        return self.lines

    def __exit__(self, *_: object) -> None:
        logging.getLogger("pgp_pack").removeHandler(self.handler)


def _metadata(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return sorted(file.metadata())
