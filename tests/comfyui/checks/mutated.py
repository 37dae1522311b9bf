"""Damaged and foreign files in ComfyUI's loaders; what they load must run."""

from __future__ import annotations

import itertools
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.pgp_core.files import weights as weights_file

from .scene import support


def _run_unet(path: Path) -> None:
    """Load and call once."""
    unet = comfy_backbone.load_unet(str(path)).model.diffusion_model
    config = unet.input_blocks[0][0]
    dtype = torch.float32
    unet.to(dtype)
    x = torch.zeros(1, config.in_channels, 8, 8)
    # Without any block nothing looks at the prompt.
    widths = [m.attn2.to_k.in_features for m in unet.modules() if hasattr(m, "attn2")] or [1]
    context = torch.zeros(1, 3, widths[0])
    y = torch.zeros(1, unet.label_emb[0][0].in_features)
    assert unet(x, torch.tensor([500.0]), context, y).shape == x.shape


def _run_guidance(path: Path) -> None:
    """Load, make features and fuse once."""
    guidance = comfy_backbone.load_guidance(str(path)).model
    features = guidance.features(torch.zeros(1, 3, 32, 32))
    for i, f in enumerate(features):
        assert guidance.fuse(i, torch.zeros_like(f), f).shape == f.shape


def check_mutated(out: Path) -> Any:
    """Every file: ``[class, message]`` or nothing, seconds, and warnings."""
    mutations, results = support("mutations"), []
    mutations.remember_readings(setattr, weights_file)
    files = out.parent / "files"
    # Every second one: both backbones read files by the same code, and the other tests take all of them.
    for mutation in itertools.islice(mutations.mutations(files), 0, None, 2):
        actions: list[Callable[[Path], None]] = []
        if mutation.base != mutations.GUIDANCE:
            actions.append(_run_unet)
        if mutation.base not in (mutations.UNET, mutations.NANO):
            actions.append(_run_guidance)
        path = files / f"mutated{Path(mutation.base).suffix}"
        mutation.write(path)
        for action in actions:
            results.append([mutation.file, action.__name__, *_outcome(action, path)])
        path.unlink()
    return results


def check_wrong_files(out: Path) -> Any:
    """Whole files that are no UNet, or one of another kind; by name."""
    files = out.parent / "files" / "wrong"
    return {p.name: _outcome(_run_unet, p) for p in sorted(files.iterdir())}


def _outcome(action: Callable[[Path], None], path: Path) -> list[Any]:
    started, error = time.monotonic(), []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            action(path)
        except Exception as e:
            error = [type(e).__name__, str(e)]
    # Names in damaged files may hold what JSON's encoder takes and a log's encoding does not.
    return json.loads(json.dumps([error, time.monotonic() - started, [str(w.message) for w in warned]]))
