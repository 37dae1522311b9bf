"""CONDITIONING through files, in ComfyUI's folders and made by core's own nodes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy.hooks
import folder_paths
import torch
from comfy.cli_args import args
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.load_conditioning import PGPDiffSRLoadConditioning
from pgp_pack.nodes.save_conditioning import PGPDiffSRSaveConditioning
from pgp_pack.pgp_core.conditioning import entries as conditioning

import nodes

from . import scene
from .raised import raised

HEIGHT, WIDTH, STEPS = 9, 7, 3


def check_conditioning_folders(_out: Path) -> Any:
    with _folders() as base:
        before = _names()
        (base / "models" / "conditioning" / "sub").mkdir(parents=True)
        (base / "output" / "conditioning").mkdir(parents=True)
        empty = _names()
        for name in ("models/conditioning/a.safetensors", "models/conditioning/sub/B.SAFETENSORS"):
            (base / name).touch()
        for name in ("models/conditioning/a.pt", "models/conditioning/a.txt", "output/other.safetensors"):
            (base / name).touch()
        _save(_entry(), "conditioning/saved")
        return {
            "before": before,
            "empty": empty,
            "after": [n.replace("\\", "/") for n in _names()],
            "folders": [Path(p).relative_to(base).as_posix() for p in folder_paths.get_folder_paths("conditioning")],
            "extensions": sorted(folder_paths.folder_names_and_paths["conditioning"][1]),
        }


def check_conditioning_folders_of_others(_out: Path) -> Any:
    """Made by another pack or a yaml file before us: nothing of theirs is lost, registering twice adds nothing."""
    results = {}
    for kind, extensions in {"yaml": set(), "pack": {".pt"}, "list": [".bin"]}.items():
        with _folders(before=(["/elsewhere"], extensions)):
            comfy_backbone.register_folders()
            folders, now = folder_paths.folder_names_and_paths["conditioning"]
            results[kind] = [len(folders), folders[0], sorted(now)]
    return results


def check_conditioning_made_by_core(_out: Path) -> Any:
    """What core's nodes make of nano's contexts: kept bit for bit, or refused."""
    nano = scene.Nano()
    positive, negative = nano.positive, nano.negative
    hooked = comfy.hooks.set_hooks_for_conditioning(positive, comfy.hooks.HookGroup())
    made = {
        "plain": positive,
        "combined": nodes.ConditioningCombine().combine(positive, negative)[0],
        "averaged": nodes.ConditioningAverage().addWeighted(positive, negative, 0.3)[0],
        "zero": nodes.ConditioningZeroOut().zero_out(positive)[0],
        "range": nodes.ConditioningSetTimestepRange().set_range(positive, 0.1, 0.8)[0],
        "strength": nodes.ConditioningSetAreaStrength().append(positive, 0.7)[0],
        "area": nodes.ConditioningSetArea().append(positive, 64, 64, 0, 0, 1.0)[0],
        "percent area": nodes.ConditioningSetAreaPercentage().append(positive, 0.5, 0.5, 0.0, 0.0, 1.0)[0],
        "mask": nodes.ConditioningSetMask().append(positive, torch.ones(1, 8, 8), "default", 1.0)[0],
        "control": nodes.ControlNetApply().apply_controlnet(positive, _Control(), torch.ones(1, 8, 8, 3), 1.0)[0],
        "hooks": hooked,
        "unclip": nodes.unCLIPConditioning().apply_adm(positive, object(), 1.0, 0.0)[0],
    }
    results = {}
    with _folders():
        for kind, entries in made.items():
            try:
                name = _save(entries, f"conditioning/{kind}")
            except Exception as e:
                results[kind] = [type(e).__name__, str(e)]
            else:
                results[kind] = _same(_load(name), entries)
    return results


def check_conditioning_samples_the_same(_out: Path) -> Any:
    """A loaded CONDITIONING samples bit for bit what the one that was saved does."""
    nano = scene.Nano()
    noise = scene.noise(1, HEIGHT, WIDTH)
    guided = nano.guided(scene.pictures(1, 1, HEIGHT, WIDTH))
    # Two entries, one of them for a part of the sampling.
    late = nodes.ConditioningSetTimestepRange().set_range(nano.negative, 0.5, 1.0)[0]
    nano.positive = nodes.ConditioningCombine().combine(nano.positive, late)[0]
    direct = nano.sample(guided, noise, STEPS)
    other = nano.negative
    with _folders():
        names = [_save(c, "conditioning/c") for c in (nano.positive, nano.negative)]
        nano.positive, nano.negative = (_load(n) for n in names)
    loaded = nano.sample(guided, noise, STEPS)
    nano.positive = other
    return {
        "equal": torch.equal(direct, loaded),
        "matters": scene.difference(nano.sample(guided, noise, STEPS), loaded),
    }


def check_conditioning_for_the_command_line(out: Path) -> Any:
    """Core's vector for SDXL's sizes; the test makes it from the file with diffusers."""
    nano = scene.Nano()
    sizes = {"height": 600, "width": 700, "crop_h": 30, "crop_w": 40, "target_height": 1000, "target_width": 1100}
    results = {}
    for kind, given in {"all": sizes, "no target": {"height": 600, "width": 700}}.items():
        (context, options), *_ = nano.positive
        entry = [context, {"pooled_output": options["pooled_output"], **given}]
        conditioning.save(out.with_name(f"conditioning {kind}.safetensors"), [entry])
        results[kind] = nano.model.model.encode_adm(device=torch.device("cpu"), **entry[1])
    scene.save(out, **results)


def check_conditioning_metadata(_out: Path) -> Any:
    results = {}
    with _folders() as base:
        for name, disabled in {"as asked": False, "--disable-metadata": True}.items():
            with replace.object(args, "disable_metadata", disabled):
                file = _save(_entry(), "conditioning/c", "a prompt, ü")
            results[name] = conditioning.load(base / "output" / file).prompt
    return results


def check_conditioning_names_and_paths(_out: Path) -> Any:
    results: dict[str, Any] = {}
    with _folders() as base:
        prefixes = ["../out", "conditioning/../../out", str(base / "elsewhere" / "c"), "a\0b", "/tmp/c"]
        results["prefixes"] = [raised(lambda p=p: _save(_entry(), p)) for p in prefixes]
        (base / "output").mkdir(exist_ok=True)
        (base / "output" / "file").touch()
        results["folder is a file"] = raised(lambda: _save(_entry(), "file/c"))
        results["refused"] = raised(lambda: _save([[_entry()[0][0], {"hooks": 1}]], "new/c"))
        results["left behind"] = [p.name for p in base.rglob("*") if p.is_file() and p.name != "file"]
        (base / "secret.safetensors").touch()
        results["names"] = [raised(lambda n=n: _load(n)) for n in ("none.safetensors", "../../secret.safetensors")]
        results["fingerprint of none"] = _fingerprint("none.safetensors")

        name = _save(_entry(), "conditioning/c")
        results["numbered"] = [name, _save(_entry(), "conditioning/c")]
        before, file = _fingerprint(name), base / "output" / name
        results["fingerprint again"] = _fingerprint(name) == before
        status = file.stat()
        conditioning.save(file, [[_entry()[0][0] + 1, _entry()[0][1]]])
        # As a copy that keeps times: only the content tells.
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        results["of the same size"] = file.stat().st_size == status.st_size
        results["fingerprint of another"] = _fingerprint(name) != before
        results["shown"] = PGPDiffSRSaveConditioning.execute(_entry(), "elsewhere/c").ui.as_dict()["text"]
    return results


class _Control:
    """As much of a ControlNet as core's node asks for."""

    def copy(self) -> _Control:
        return self

    def set_cond_hint(self, *_: Any, **__: Any) -> _Control:
        return self

    def set_previous_controlnet(self, *_: Any) -> None:
        pass


def _entry() -> list[list[Any]]:
    return [[torch.arange(40.0).view(1, 5, 8), {"pooled_output": torch.ones(1, 4)}]]


@contextmanager
def _folders(before: Any = None) -> Iterator[Path]:
    """Folders of ComfyUI's that end with the block, and our own registered in them."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder).resolve()
        with (
            replace.object(folder_paths, "models_dir", str(base / "models")),
            replace.object(folder_paths, "output_directory", str(base / "output")),
            replace.dict(folder_paths.folder_names_and_paths),
            replace.dict(folder_paths.filename_list_cache),
        ):
            folder_paths.folder_names_and_paths.pop("conditioning", None)
            folder_paths.filename_list_cache.pop("conditioning", None)
            if before is not None:
                folder_paths.folder_names_and_paths["conditioning"] = before
            comfy_backbone.register_folders()
            yield base


def _save(entries: Any, prefix: str, prompt: str = "") -> str:
    """Through the node; the name that it shows."""
    (name,) = PGPDiffSRSaveConditioning.execute(entries, prefix, prompt).ui.as_dict()["text"]
    return str(name)


def _load(name: str) -> Any:
    """Through the node, by the name in its list or the one that the saver shows."""
    return PGPDiffSRLoadConditioning.execute(name.removeprefix("conditioning/")).args[0]


def _fingerprint(name: str) -> Any:
    return PGPDiffSRLoadConditioning.fingerprint_inputs(name.removeprefix("conditioning/"))


def _names() -> Any:
    return PGPDiffSRLoadConditioning.define_schema().inputs[0].options


def _same(a: Any, b: Any) -> bool:
    """Equal bits, dtypes and types."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return type(a) is type(b) and bool(a == b)
