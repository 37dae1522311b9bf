"""A MODEL into a file, pruned as it is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import folder_paths
import torch
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher

from ...pgp_core.errors import CheckpointError, PGPError
from ...pgp_core.files.atomic import replacing
from ...pgp_core.files.locks import locked
from ...pgp_core.files.safetensors_stream import storable, write_streaming
from ...pgp_core.files.weights import WeightsFile, open_weights
from ...pgp_core.unet.core_loading import CoreLoading, loads_in_core
from ...pgp_core.unet.inspect import MODEL_KEY, UNetInfo, inspect_unet, markers_of, metadata_of
from ...pgp_core.unet.plan import PrunePlan, StackPlan
from ...pgp_core.unet.prune import prune_state_dict
from .blocks import skipped_blocks
from .predictions import SAMPLING, prediction_of
from .pruning import ATTACHMENT
from .topology import info_of
from .workflow_metadata import workflow_metadata

#: Types of weights that a file of ours can have.
_WEIGHTS = {"float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"}


def numbered(filename_prefix: str, extension: str, error: type[PGPError]) -> Path:
    """A new file below ComfyUI's output folder, with core's numbering.

    Raises:
        PGPError: of the class given, if the prefix leads out of the output folder or cannot be a file's name.
    """
    try:
        if "\0" in filename_prefix or not storable(filename_prefix):
            raise OSError("a file's name has no null character and no half of a surrogate pair")
        folder, name, counter, _, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
    except OSError as e:
        raise error(f"{filename_prefix!r} cannot be written below the output folder: {e}") from None
    except Exception:
        # Core raises a plain Exception of several lines, with paths of this machine.
        raise error(
            f"filename_prefix {filename_prefix!r} leads out of ComfyUI's output folder: choose a name in it"
        ) from None
    return Path(folder) / f"{name}_{counter:05}_{extension}"


def save_unet(model: ModelPatcher, filename_prefix: str, prompt: Any = None, extra_pnginfo: Any = None) -> Path:
    """Write a MODEL's UNet below ComfyUI's output folder, without the blocks that plans pass over.

    LoRAs and merges are baked in, as core's Save Model does it. Keys are LDM's without prefix, blocks keep their
    original numbers; metadata holds modelspec, the plan and, unless ComfyUI is told not to, the workflow.

    Raises:
        CheckpointError: if the MODEL is no SDXL-shaped UNet or is quantised, the prefix leads out of the output folder,
            or the file cannot be written.
    """
    packed = sorted({str(p.dtype).removeprefix("torch.") for p in model.model.diffusion_model.parameters()} - _WEIGHTS)
    if packed:
        raise CheckpointError(
            f"this MODEL's weights are quantised (packed as {', '.join(packed)}, as GGUF files have them), and "
            "cannot be written as they are: save a MODEL that was loaded from a file in float16, bfloat16 or float8"
        )
    mm.load_models_gpu([model])
    weights = model.model_state_dict_for_saving(model.model.diffusion_model, "diffusion_model.")
    info = _info(model, weights)
    gone = skipped_blocks(model)
    last = model.get_attachment(ATTACHMENT) if gone else info.plan
    plan = PrunePlan(
        last.name,
        info.plan.topology,
        {s: StackPlan(e.depth, tuple(b for b in e.keep if (s, b) not in gone)) for s, e in info.plan.stacks.items()},
        last.provenance,
    )
    info = replace(info, plan=plan)
    kept = prune_state_dict(weights, plan) | {name: torch.zeros(0) for name in markers_of(info)}

    path = numbered(filename_prefix, ".safetensors", CheckpointError)
    metadata = metadata_of(info, path.stem.rstrip("_"))
    if not args.disable_metadata:
        metadata |= workflow_metadata(prompt, extra_pnginfo, metadata)
    try:
        with new_file(path, CheckpointError), replacing(path) as temporary:
            write_streaming(
                temporary,
                {k: tuple(v.shape) for k, v in kept.items()},
                {k: v.dtype for k, v in kept.items()},
                # Core's lazy parameters give their patched weight when asked for it on the CPU.
                lambda k: kept[k].to("cpu").detach(),
                metadata,
            )
    except OSError as e:
        raise CheckpointError(f"{relative_to_output(path)} cannot be written: {e.strerror or e}") from None
    return path


@contextmanager
def new_file(path: Path, error: type[PGPError]) -> Iterator[None]:
    """Hold a name that :func:`numbered` gave while its file is written.

    Raises:
        PGPError: if another process writes it, or has written it since.
    """
    with locked(path, "queue it again, which takes the next number"):
        if path.exists():
            raise error(f"{relative_to_output(path)} was written by another process meanwhile: queue it again")
        yield


def _info(model: ModelPatcher, weights: dict[str, Any]) -> UNetInfo:
    """What the MODEL is, as its file would say."""
    prediction, zero_snr = prediction_of(model)
    own = info_of(model)
    # Another sampling, set on the MODEL, has no start gain.
    latent_std = own.latent_std if own and SAMPLING not in model.object_patches else 0.0
    about = {"prediction": prediction, "latent_std": latent_std, "zero_snr": zero_snr}
    if own:
        about["topology"] = own.shape.topology.name
    info = inspect_unet(
        WeightsFile(
            "this MODEL",
            {k: tuple(v.shape) for k, v in weights.items()},
            frozenset(k for k, v in weights.items() if v.dtype.is_floating_point),
            weights.__getitem__,
            {MODEL_KEY: json.dumps(about)},
        )
    )
    named = replace(info.plan, name=own.plan.name, provenance=own.plan.provenance) if own else info.plan
    return replace(info, plan=named)


def core_loading_of(path: Path) -> CoreLoading:
    """Whether core's own loader reads a file that :func:`save_unet` wrote, by what the file holds.

    Raises:
        CheckpointError: if it is gone, or not what was written.
    """
    with open_weights(path) as file:
        return loads_in_core(inspect_unet(file))


def relative_to_output(path: Path) -> str:
    """How a file below the output folder is shown to people."""
    return os.path.relpath(path, folder_paths.get_output_directory())
