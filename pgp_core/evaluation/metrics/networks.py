"""Metrics that are networks: loaded once, for all pictures, onto a device.

LPIPS and DISTS are torchmetrics's, whose wheel has what was learned for them, on top of AlexNet and VGG-16, which are
the user's files (:mod:`pgp_core.files.backbones`). The others are pyiqa's, see :mod:`.through_pyiqa`. Nothing is
downloaded unless the caller says so, and a metric that cannot be loaded is named with the reason; no other figure takes
its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ...errors import CheckpointError, PGPError, WrongUsage
from ...extras import library
from ...files.backbones import ALEXNET, VGG16, Backbone
from . import METRICS, through_pyiqa
from .offline import offline
from .pictures import Array, size, two

#: ``measure(result, hq)`` or ``measure(result)``, as of :class:`.Metric`.
Measure = Callable[..., float]

#: What each stands on; a file for it can be given.
BACKBONES: dict[str, Backbone] = {"lpips": ALEXNET, "dists": VGG16}

#: Of AlexNet, whose layers shrink a picture: with less, nothing is left for the last.
SMALLEST_LPIPS = 31


def load(
    names: Sequence[str],
    device: torch.device | str = "cpu",
    download: bool = False,
    backbones: Mapping[str, str | Path] | None = None,
) -> tuple[dict[str, Measure], dict[str, str]]:
    """Load those of the named metrics that are networks.

    Args:
        names: of :data:`METRICS`; those that are no networks are passed over.
        device: where they run, in float32.
        download: whether what is missing may be fetched.
        backbones: files for LPIPS and DISTS, by the metric's name; otherwise they are looked for where torchvision
            keeps them.

    Returns:
        ``measures``, by name, and ``missing``: name to one line that says why there is none and what to do.

    Raises:
        WrongUsage: if a name is no metric, or a backbone is given to what has none.
    """
    for name in names:
        if name not in METRICS:
            raise WrongUsage(f"there is no metric {name!r}: there are {', '.join(METRICS)}")
    given = dict(backbones or {})
    for name in given:
        if name not in BACKBONES:
            raise WrongUsage(f"a backbone can be given to {' and '.join(BACKBONES)}, not to {name!r}")
    measures: dict[str, Measure] = {}
    missing: dict[str, str] = {}
    for name in names:
        if not METRICS[name].network:
            continue
        try:
            if name in BACKBONES:
                measures[name] = _on_backbone(name, torch.device(device), download, given.get(name))
            else:
                measures[name] = through_pyiqa.load(name, torch.device(device), download)
        except PGPError as e:
            missing[name] = str(e)
    return measures, missing


def licences(names: Sequence[str]) -> list[str]:
    """Lines to be said where the named metrics are measured by what has terms of its own."""
    return [through_pyiqa.licence()] if any(name in through_pyiqa.NAMES for name in names) else []


def _on_backbone(name: str, device: torch.device, download: bool, given: str | Path | None) -> Measure:
    weights = BACKBONES[name].read(_find(name, download, given))
    with offline():
        network = {"lpips": _lpips, "dists": _dists}[name](weights)
    network = network.eval().requires_grad_(False).to(device)

    def measure(result: Array, hq: Array) -> float:
        a, b = two(result, hq)
        if name == "lpips" and min(a.shape[:2]) < SMALLEST_LPIPS:
            raise PGPError(f"LPIPS needs at least {SMALLEST_LPIPS}x{SMALLEST_LPIPS} pixels, not {size(a)}")
        with exactly():
            return float(network(tensor(a, device), tensor(b, device)))

    return measure


def _find(name: str, download: bool, given: str | Path | None) -> Path:
    backbone, head = BACKBONES[name], METRICS[name].head
    if given is not None:
        path = Path(os.path.expanduser(given))
        if not path.is_file():
            raise CheckpointError(f"{head} has no backbone: there is no file {path}")
        return path
    place = backbone.place()
    if place.is_file():
        return place
    if download:
        return backbone.fetch()
    raise CheckpointError(
        f"{head} needs {backbone.name}'s weights: put {backbone.url} at {place}, name a file with --backbone "
        f"{name}=FILE, or let --download fetch it ({backbone.size})"
    )


def tensor(rgb: Array, device: torch.device) -> torch.Tensor:
    """``(H, W, 3)`` float64 to ``(1, 3, H, W)`` float32, cut off outside of [0, 1]."""
    return torch.from_numpy(np.clip(rgb, 0, 1).astype(np.float32).transpose(2, 0, 1)[None].copy()).to(device)


@contextmanager
def exactly() -> Iterator[None]:
    """Inference in full float32: the TF32 that CUDA would take for convolutions changes the fourth digit."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


def _lpips(weights: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """LPIPS version 0.1 on AlexNet; of ``(B, 3, H, W)`` in [0, 1]."""
    module = _torchmetrics("lpips", "LPIPS")
    features = _features("alexnet", ALEXNET, weights)
    with _in_place_of(module, "_get_tv_model_features", lambda *args, **kwargs: features):
        network = module._NoTrainLpips(net="alex", pnet_rand=True)
    return _From0To1(network)


class _From0To1(torch.nn.Module):
    """LPIPS's network itself takes [-1, 1]."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.network(a, b, normalize=True)


def _dists(weights: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """DISTS on VGG-16; of ``(B, 3, H, W)`` in [0, 1], at their own size."""
    module = _torchmetrics("dists", "DISTS")
    features = _features("vgg16", VGG16, weights)
    with _in_place_of(module, "vgg16", lambda *args, **kwargs: SimpleNamespace(features=features)):
        network: torch.nn.Module = module.DISTSNetwork()
    return network


def _torchmetrics(module: str, head: str) -> Any:
    library("torchvision", f"the metric {head}", "torchvision", "eval")
    return library(f"torchmetrics.functional.image.{module}", f"the metric {head}", "torchmetrics", "eval")


def _features(name: str, backbone: Backbone, weights: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """A backbone's convolutions, without drawing weights that are replaced, and without its large classifier."""
    models = library("torchvision.models", "the metric", "torchvision", "eval")
    with torch.device("meta"):
        features: torch.nn.Module = getattr(models, name)(weights=None).features
    fitting = backbone.fitting(weights, {f"features.{k}": v.shape for k, v in features.state_dict().items()})
    features.load_state_dict({k.removeprefix("features."): v for k, v in fitting.items()}, assign=True)
    return features


@contextmanager
def _in_place_of(module: Any, name: str, value: Any) -> Iterator[None]:
    """torchmetrics makes its backbone itself, from what torchvision downloads; here it gets one that is there.

    Raises:
        PGPError: if this torchmetrics is built otherwise.
    """
    before = getattr(module, name, None)
    if before is None:
        raise PGPError(
            'this torchmetrics is of a version that is not known here: pip install "torchmetrics>=1.8,<1.10"'
        )
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
