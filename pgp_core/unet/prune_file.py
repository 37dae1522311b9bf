"""A UNet file without the blocks that a plan removes, or with dense block numbers; written tensor by tensor."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..files.atomic import replacing
from ..files.locks import locked
from ..files.safetensors_stream import write_streaming
from ..files.weights import WeightsFile, open_weights
from ..progress import Progress
from .inspect import PLAN_KEY, RENUMBERED_KEY, UNetInfo, inspect_unet, markers_of, metadata_of
from .loading import check_whole
from .plan import PrunePlan
from .topology import split_block

StrPath = str | os.PathLike[str]


def prune_file(source: StrPath, plan: PrunePlan | None, target: StrPath, progress: Progress | None = None) -> UNetInfo:
    """Write the UNet of a file without the blocks that a plan removes.

    The result has LDM keys without prefix, the blocks' original numbers, each tensor's own dtype, and metadata that
    says which blocks stay. Only what stays is read.

    Args:
        source: a UNet or a whole checkpoint, in either naming; it may be pruned already.
        plan: None to keep all that the file has.
        target: ends in .safetensors.
        progress: called with bytes done and in all.

    Returns:
        what was written; its ``keys`` are the source's.

    Raises:
        CheckpointError: if the source is no whole UNet, or the target is there already or cannot be written.
        PlanError: if the plan does not fit.
    """
    target = _free(target)
    with open_weights(source) as file:
        info = inspect_unet(file, plan)
        _write(file, info, {info.ldm(k): k for k in info.keys}, target, metadata_of(info, target.stem), progress)
    return info


def renumber_file(source: StrPath, target: StrPath, progress: Progress | None = None) -> UNetInfo:
    """Write the UNet of a file with its blocks numbered from 0 without gaps, for tools that count on it.

    Original numbers are lost to whatever reads the keys, so LoRAs and plans would land on wrong blocks: the
    metadata says so (``pgp.renumbered``: blocks in each stack, and their original numbers), and
    :func:`pgp_core.unet.inspect.inspect_unet` refuses such a file.

    Args, returns and errors: as :func:`prune_file`.
    """
    target = _free(target)
    with open_weights(source) as file:
        info = inspect_unet(file)
        dense = {(s, n): i for s, e in info.plan.stacks.items() for i, n in enumerate(e.keep)}

        def renamed(key: str) -> str:
            name, block = info.ldm(key), split_block(info.diffusers(key))
            if block is None:
                return name
            number = f".transformer_blocks.{block[1]}."
            return name.replace(number, f".transformer_blocks.{dense[block]}.", 1)

        metadata = metadata_of(info, target.stem)
        del metadata[PLAN_KEY]
        metadata[RENUMBERED_KEY] = json.dumps(
            {
                "format": "pgp-diffsr/renumbered",
                "version": 1,
                "topology": info.plan.topology,
                "depths": {s: len(kept) for s, kept in info.plan.blocks.items()},
                "numbers": {s: list(kept) for s, kept in info.plan.blocks.items()},
            }
        )
        _write(file, info, {renamed(k): k for k in info.keys}, target, metadata, progress)
    return info


def _free(target: StrPath) -> Path:
    target = Path(target)
    if target.suffix.lower() != ".safetensors":
        raise CheckpointError(f"{target} does not end in .safetensors, which the file will be")
    if target.exists():
        raise CheckpointError(f"{target} is there already: choose another name, or delete it")
    return target


def _write(
    file: WeightsFile,
    info: UNetInfo,
    names: Mapping[str, str],
    target: Path,
    metadata: Mapping[str, str],
    progress: Progress | None,
) -> None:
    check_whole(info, file, info.plan)
    shapes = {new: file.shapes[old] for new, old in names.items()}
    dtypes = {new: file.dtypes[old] for new, old in names.items()}
    total = sum(math.prod(s) * dtypes[k].itemsize for k, s in shapes.items())
    done = 0
    markers = markers_of(info)

    def read(name: str) -> torch.Tensor:
        nonlocal done
        if name in markers:
            return torch.zeros(0)
        tensor = file.read(names[name])
        done += tensor.nbytes
        if progress is not None:
            progress(done, total)
        return tensor

    try:
        with locked(target), replacing(_free(target)) as temporary:
            write_streaming(
                temporary,
                {**shapes, **dict.fromkeys(markers, (0,))},
                {**dtypes, **dict.fromkeys(markers, torch.float32)},
                read,
                metadata,
                file.name,
            )
    except OSError as e:
        raise CheckpointError(f"{target} cannot be written: {e}") from None
