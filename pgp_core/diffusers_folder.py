"""A folder as diffusers saves a pipeline: one folder a component, read here without its loader and never fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .errors import CheckpointError
from .json_format import loads
from .weights_file import WeightsFile, open_weights

#: In this order: what was saved unnamed is the most precise; safetensors before pickled weights.
_STEMS = ("diffusion_pytorch_model", "diffusion_pytorch_model.fp16", "diffusion_pytorch_model.bf16")
_SUFFIXES = (".safetensors", ".bin")


def component(folder: Path, name: str, without: str) -> Path:
    """The folder of one component.

    Args:
        without: what to do where there is none, for the error.

    Raises:
        CheckpointError: if the folder has no such component.
    """
    if not (folder / name).is_dir():
        raise CheckpointError(f"{folder} has no folder {name}: {without}")
    return folder / name


def config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A component's settings; empty where there are none.

    Raises:
        CheckpointError: if the file is no JSON object.
    """
    path = folder / name
    if not path.is_file():
        return {}
    try:
        data = loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path} cannot be read: {e}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is no JSON object")
    return data


def weight_files(folder: Path) -> list[Path]:
    """The files that hold one component's weights: one, or the shards of one.

    Raises:
        CheckpointError: if there are none, or not all shards.
    """
    for suffix in _SUFFIXES:
        for stem in _STEMS:
            if (folder / f"{stem}{suffix}").is_file():
                return [folder / f"{stem}{suffix}"]
            shards = sorted(folder.glob(f"{stem}-*-of-*{suffix}"))
            if not shards:
                continue
            count = re.search(r"-of-(\d+)", shards[0].name)
            if count and len(shards) != int(count[1]):
                raise CheckpointError(f"{folder} has {len(shards)} of {int(count[1])} files of weights: get the others")
            return shards
    raise CheckpointError(f"{folder} has no weights: there is no {_STEMS[0]}{_SUFFIXES[0]}")


@contextmanager
def open_component(folder: Path) -> Iterator[WeightsFile]:
    """The weights of one component, shards taken together.

    Raises:
        CheckpointError: see :func:`weight_files` and :func:`pgp_core.weights_file.open_weights`.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(open_weights(path)) for path in weight_files(folder)]
        holder = {key: file for file in files for key in file.shapes}
        yield WeightsFile(
            f"{folder.parent.name}/{folder.name}",
            {key: file.shapes[key] for key, file in holder.items()},
            frozenset(key for key, file in holder.items() if key in file.floating),
            lambda key: holder[key].read(key),
            files[0].metadata if len(files) == 1 else {},
            all(file.mapped for file in files),
        )
