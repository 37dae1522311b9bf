"""A folder as diffusers saves a pipeline: one folder a component, found here without its loader and never fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, name_some
from .json_format import read_json

#: In this order: what was saved unnamed is the most precise; safetensors before pickled weights.
_STEMS = tuple(
    f"{stem}{variant}"
    for stem in ("diffusion_pytorch_model", "model", "pytorch_model")
    for variant in ("", ".fp16", ".bf16")
)
_SUFFIXES = (".safetensors", ".bin")
#: Of any file of weights that a folder may hold alone.
WEIGHTS = (".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt")
#: A folder that has one of these folders is a pipeline's.
_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "scheduler")
_SHARD = re.compile(r"(?P<stem>.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.safetensors|\.bin)$")


@dataclass(frozen=True)
class FoundWeights:
    """Files of weights that belong together.

    Attributes:
        name: what to call them.
        files: one, or all the shards of one.
        scheduler: settings of the scheduler of the pipeline that a UNet belongs to; empty where there is none.
        note: what is to be said of the choice, or empty.
    """

    name: str
    files: tuple[Path, ...]
    scheduler: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def is_pipeline(folder: Path) -> bool:
    """Whether a folder has components, each in a folder of its own."""
    parts = any((folder / p).is_dir() for p in _PARTS)
    return folder.is_dir() and (parts or (folder / "model_index.json").is_file())


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
    data = read_json(path, "settings", CheckpointError)
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is no JSON object")
    return data


def find_weights(path: Path, part: str = "unet") -> FoundWeights:
    """The files behind a path that a user gave: a file; a component's folder, or a whole pipeline's; an index of
    shards, or one of the shards.

    Args:
        part: the component that is taken of a pipeline's folder.

    Raises:
        CheckpointError: if there are none, or not all of them.
    """
    folder = path
    if path.is_dir():
        if path.suffix == ".mlpackage" or (path / "Manifest.json").is_file():
            raise CheckpointError(f"{path.name} is a Core ML model, for Apple's devices: take the safetensors file")
        folder = path / part if is_pipeline(path) or (path / part).is_dir() else path
        if folder != path and not folder.is_dir():
            raise CheckpointError(f"{path} has no folder {part}: give another folder or file")
        files = tuple(weight_files(folder))
        return FoundWeights("/".join(folder.parts[-2:]), files, _scheduler(folder))
    folder = path.parent
    if path.name == "model_index.json":
        return find_weights(folder, part)
    if path.name.endswith(".json") and ".index." in path.name:
        return FoundWeights(path.name, tuple(_indexed(path)), _scheduler(folder))
    shard = _SHARD.fullmatch(path.name)
    if shard is not None and path.is_file() and int(shard["count"]) > 1:
        note = f"it is one of {int(shard['count'])} files of one model: all are taken"
        return FoundWeights(path.name, tuple(_beside(path, shard)), _scheduler(folder), note)
    return FoundWeights(path.name, (path,), _scheduler(folder))


def weight_files(folder: Path) -> list[Path]:
    """The files that hold one component's weights: one, or the shards of one.

    Raises:
        CheckpointError: if there are none, not all shards, or several and none with a name that diffusers gives.
    """
    for suffix in _SUFFIXES:
        for stem in _STEMS:
            if (folder / f"{stem}{suffix}").is_file():
                return [folder / f"{stem}{suffix}"]
            if shards := sorted(folder.glob(f"{stem}-*-of-*{suffix}")):
                return _all_shards(folder, shards)
    try:
        others = sorted(p for p in folder.iterdir() if p.suffix.lower() in WEIGHTS and p.is_file())
    except OSError as e:
        raise CheckpointError(f"{folder} cannot be read: {e.strerror or e}") from None
    if len(others) == 1:
        return others
    if len({m["stem"] for p in others if (m := _SHARD.fullmatch(p.name))}) == 1 and others:
        return _all_shards(folder, [p for p in others if _SHARD.fullmatch(p.name)])
    if others:
        raise CheckpointError(f"{folder} has several models ({name_some(p.name for p in others)}): give one of them")
    raise CheckpointError(f"{folder} has no weights: there is no {_STEMS[0]}{_SUFFIXES[0]}")


def is_later_shard(path: Path) -> bool:
    """Whether a file is one of several of a model, and the first of them lies beside it."""
    shard = _SHARD.fullmatch(path.name)
    if shard is None or int(shard["number"]) == 1:
        return False
    return path.with_name(f"{shard['stem']}-00001-of-{shard['count']}{shard['suffix']}").is_file()


def _all_shards(folder: Path, shards: list[Path]) -> list[Path]:
    count = re.search(r"-of-(\d+)", shards[0].name)
    if count and len(shards) != int(count[1]):
        raise CheckpointError(f"{folder} has {len(shards)} of {int(count[1])} files of weights: get the others")
    return shards


def _beside(path: Path, shard: re.Match[str]) -> list[Path]:
    """All shards of the model that one belongs to."""
    count = int(shard["count"])
    if count > 4096:
        raise CheckpointError(f"{path.name} would be one of {count} files, which no model has")
    wanted = [path.with_name(f"{shard['stem']}-{i + 1:05}-of-{shard['count']}{shard['suffix']}") for i in range(count)]
    _check_there(path.name, wanted)
    return wanted


def _indexed(path: Path) -> list[Path]:
    """The shards that an index names."""
    data = read_json(path, "settings", CheckpointError) if path.is_file() else None
    if data is None:
        raise CheckpointError(f"there is no file {path}: it is missing or was moved")
    names = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f'{path.name} is no index of weights: it has no "weight_map"')
    # Nothing outside its own folder.
    if odd := [n for n in names.values() if not isinstance(n, str) or Path(n).name != n or "\0" in n]:
        raise CheckpointError(f"{path.name} names {odd[0]!r}, which is no file beside it: get it again")
    wanted = [path.with_name(n) for n in sorted(set(names.values()))]
    _check_there(path.name, wanted)
    return wanted


def _check_there(name: str, wanted: list[Path]) -> None:
    if missing := [p.name for p in wanted if not p.is_file()]:
        raise CheckpointError(
            f"{name} belongs to a model in {len(wanted)} files, of which {name_some(missing)} are missing: put them "
            "beside it"
        )


def _scheduler(folder: Path) -> dict[str, Any]:
    """How the pipeline that a UNet's folder belongs to samples."""
    return config(folder.parent / "scheduler", "scheduler_config.json") if folder.name == "unet" else {}
