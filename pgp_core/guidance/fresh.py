"""Guidance to begin training with: it changes nothing until it is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from ..files.checkpoints import write_safetensors
from ..files.weights import open_weights
from ..unet.inspect import inspect_unet
from ..unet.known import SDXL
from ..unet.plan import PrunePlan
from .faithdiff import load_extras
from .module import KEY_PREFIX, METADATA_KEY, Guidance, GuidanceSpec, Site


def fresh_spec(channels: int = 320, plan: PrunePlan | None = None, base: str | None = None) -> GuidanceSpec:
    """One PEAM where T2I-Adapter-XL's first level comes in, as the paper's counts say.

    Args:
        channels: of the UNet's first level.
        plan: of the UNet that it will be trained with, which the file notes.
        base: name of that UNet's topology; by default the plan's, without one SDXL's.
    """
    # Level 0 is the one that is built; the others keep full_adapter_xl's proportions.
    widths = (channels, 2 * channels, 4 * channels, 4 * channels)
    base = base or (plan.topology if plan else SDXL.name)
    spec = GuidanceSpec(base=base, sites=(Site(channels=channels),), channels=widths, trained=False)
    return spec.with_plan(plan) if plan else spec


def write_fresh_guidance(
    path: Path, faithdiff: Path | None = None, model: Path | None = None, plan: PrunePlan | None = None, seed: int = 0
) -> GuidanceSpec:
    """Write an untrained guidance file for SDXL, or for a UNet that was distilled from it.

    Args:
        path: ends in ``.safetensors``.
        faithdiff: take LQ encoder and alignment from FaithDiff's file; they stand beside the PEAM.
        model: a UNet file to fit, if it is not SDXL or has other widths.
        plan: see :func:`fresh_spec`.
        seed: of the LQ adapter's and PEAM's start values.

    Raises:
        CheckpointError, GuidanceError: if a file does not fit, or nothing can be written.
    """
    channels, base = 320, None
    if model is not None:
        with open_weights(model) as file:
            shape = inspect_unet(file, plan).shape
        channels, base = shape.channels[0], shape.topology.name
    spec, tensors = make_fresh_guidance(channels, plan, faithdiff, seed, base)
    write_safetensors(path, tensors, {METADATA_KEY: json.dumps(spec.to_json())})
    return spec


def make_fresh_guidance(
    channels: int = 320,
    plan: PrunePlan | None = None,
    faithdiff: Path | None = None,
    seed: int = 0,
    base: str | None = None,
) -> tuple[GuidanceSpec, dict[str, torch.Tensor]]:
    """Spec and weights of untrained guidance, for :meth:`pgp_core.guidance.module.Guidance.load`.

    Args and errors: as :func:`write_fresh_guidance` and :func:`fresh_spec`.
    """
    extras: dict[str, torch.Tensor] = {}
    spec = fresh_spec(channels, plan, base)
    if faithdiff is not None:
        with open_weights(faithdiff) as file:
            theirs, extras = load_extras(file)
        spec = replace(
            spec,
            sites=(*theirs.sites, *spec.sites),
            encoder_channels=theirs.encoder_channels,
            encoder_blocks=theirs.encoder_blocks,
            alignment_layers=theirs.alignment_layers,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = Guidance.fresh(spec)
    return spec, {KEY_PREFIX + k: v for k, v in fresh.state_dict().items()} | extras
