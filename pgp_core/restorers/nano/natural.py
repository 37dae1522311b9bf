"""One dial from nano's faithful one step to its natural one: two S1 LoRAs on one base, and what lies between them.

Weights between two sets are as good as free: they are made once, when the model is loaded. So nano's dial is one
number, where PiSA-SR's (:class:`pgp_core.sampling.one_step.Dial`) calls the UNet twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

import torch

from ...errors import CheckpointError
from ...files.checkpoints import check_finite, check_same, read_safetensors
from ...files.weights import open_weights
from ...unet import lora
from .model import Files

#: Where a natural LoRA's file says how natural the model is meant to be.
DEFAULT_KEY = "pgp.natural_default"


def natural_default(files: Files) -> float:
    """The share that the natural LoRA's file asks for where nobody says; 0 where there is none. No weight is read.

    Raises:
        CheckpointError: if the file is damaged, or asks for something else than 0 to 1.
    """
    if not files.has_natural:
        return 0.0
    with open_weights(files.folder / files.natural) as file:
        text = file.metadata.get(DEFAULT_KEY, "0")
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise CheckpointError(f'{files.natural}: its metadata "{DEFAULT_KEY}" is {text[:40]!r}, not 0 to 1')
    return share


def s1_loras(share: float, files: Files | None = None) -> list[tuple[str, float]]:
    """The LoRAs that make one step, by their files' names, and how strong each is; no LoRA of strength 0.

    For programs that put LoRAs on a model themselves, as ComfyUI does.

    Args:
        share: 0 faithful, 1 natural.

    Raises:
        CheckpointError: if the natural one is wanted and is not there.
    """
    files = files or Files()
    if share and not files.has_natural:
        raise CheckpointError(f"natural needs a second S1 LoRA, {files.natural}, and this nano has none: set it to 0")
    both = [(files.s1, 1.0 - share), (files.natural, share)]
    return [(PurePosixPath(name).name, strength) for name, strength in both if strength]


def merge_s1(unet: torch.nn.Module, files: Files, share: float) -> None:
    """Make a UNet one for one step: ``W + (1 - share) * faithful + share * natural``, in place.

    At either end it is that LoRA alone, bit for bit, and the other one is not read.

    Args:
        share: 0 faithful, 1 natural.

    Raises:
        CheckpointError: if a file that is needed is not there, is damaged, or does not fit.
    """
    if share in (0, 1):
        _merge(unet, files, files.natural if share else files.s1)
        return
    own = _copy(unet)
    _merge(unet, files, files.s1)
    faithful = _copy(unet)
    unet.load_state_dict(own)
    _merge(unet, files, files.natural)
    unet.load_state_dict(mixed(faithful, unet.state_dict(), share))


def mixed(
    faithful: Mapping[str, torch.Tensor],
    natural: Mapping[str, torch.Tensor],
    share: float,
    source: str = "the natural version",
) -> dict[str, torch.Tensor]:
    """Weights between two versions of one module: ``(1 - share) * faithful + share * natural``.

    Of whole weights, such as a decoder's: a LoRA's two matrices multiply each other, so they are merged first.

    Args:
        source: what to call the second one in errors.

    Returns:
        each weight in the faithful one's type; at 0 and 1 exactly the one or the other.

    Raises:
        CheckpointError: if they are not two versions of one module.
    """
    check_same({k: tuple(v.shape) for k, v in faithful.items()}, natural, source)
    return {k: torch.lerp(v.float(), natural[k].to(v.device).float(), share).to(v.dtype) for k, v in faithful.items()}


def _merge(unet: torch.nn.Module, files: Files, name: str) -> None:
    s1, _ = read_safetensors(files.folder / name)
    check_finite(s1, name)
    lora.merge(unet, s1, source=name)


def _copy(unet: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in unet.state_dict().items()}
