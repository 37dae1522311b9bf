"""Asking a teacher once: crops as a run's data draws them, with the teacher's answers, in one file."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..errors import Cancelled, ConfigError, TrainingError
from ..files.locks import locked
from .building import resolve
from .config import RunConfig, Teacher, named_paths
from .sources import make_source, taught_path
from .stopping import asked_to_stop
from .taught_file import TaughtWriter, read_taught
from .teachers import REAL_ESRGAN, SCALE, open_teacher
from .teachers.finished import eight_bits, write_lq

#: Crops that a teacher is asked for at once.
_AT_ONCE = 4


def make_taught(config: RunConfig, progress: bool = True, device: torch.device | None = None) -> dict[str, Any]:
    """Make the file that the run is trained on, or go on with it.

    Returns:
        file, crops, teacher, licence, sha256.

    Raises:
        PGPError: if the data or the teacher is not usable, or the file cannot be written.
        Cancelled: after Ctrl-C; what is made is kept, and the same command goes on.
    """
    asked, path = _asked(config), taught_path(config)
    with locked(path):
        if path.exists():
            found = read_taught(path)
            return {"file": str(path), "crops": len(found), **_named(found.about)}
        teacher = open_teacher(asked.model, resolve(config, asked.model), asked.licence, device or torch.device("cpu"))
        samples = make_source(untaught(config)).samples
        about = {"teacher": teacher.name, "licence": teacher.licence, "sha256": teacher.sha256, "scale": SCALE}
        about["data"] = _drawn(config)
        with TaughtWriter(path, asked.crops, asked.size, about) as file, asked_to_stop() as stop:
            missing = file.missing
            bar = tqdm(total=asked.crops, initial=asked.crops - len(missing), unit="crop", disable=not progress)
            with bar:
                for start in range(0, len(missing), _AT_ONCE):
                    numbers = missing[start : start + _AT_ONCE]
                    drawn = [samples[n] for n in numbers]
                    answers = teacher(torch.stack([_small(s) for s in drawn]))
                    for n, sample, answer in zip(numbers, drawn, answers, strict=True):
                        pictures = {"hq": sample.hq, "lq": sample.lq, "taught": answer}
                        file.write(n, {k: eight_bits(v) for k, v in pictures.items()})
                        bar.update()
                    if stop.is_set() and file.missing:
                        raise Cancelled(
                            f"interrupted: {asked.crops - len(file.missing)} of {asked.crops} crops are made; the same "
                            "command goes on from there"
                        )
            file.finish()
    return {"file": str(path), "crops": asked.crops, **_named(about)}


def write_lq_crops(config: RunConfig, folder: Path, progress: bool = True) -> dict[str, Any]:
    """Write the LQ crops for a program that is to enlarge them; what is there already is left.

    Raises:
        PGPError: if the data is not usable, or nothing can be written.
        Cancelled: after Ctrl-C; the same command goes on.
    """
    asked, written = _asked(config), 0
    samples = make_source(untaught(config)).samples
    with asked_to_stop() as stop:
        for n in tqdm(range(asked.crops), unit="crop", disable=not progress):
            written += write_lq(folder, _small(samples[n]))
            if stop.is_set():
                raise Cancelled(f"interrupted: {n + 1} of {asked.crops} crops are there; the same command goes on")
    return {"folder": str(folder), "crops": asked.crops, "written": written}


def untaught(config: RunConfig) -> RunConfig:
    """The same run without a teacher, with crops of the size that one gets."""
    asked = _asked(config)
    found = replace(config, teacher=None, data=replace(config.data, patch=asked.size))
    object.__setattr__(found, "source", config.source)
    object.__setattr__(found, "root", config.root)
    return found


def _asked(config: RunConfig) -> Teacher:
    asked = config.teacher
    if asked is None:
        raise ConfigError(f"{config.source} has no [teacher]: there is nobody to ask")
    if asked.size % (8 * SCALE):
        raise ConfigError(f"{config.source}: teacher.size must be a multiple of {8 * SCALE}, not {asked.size}")
    return asked


def _drawn(config: RunConfig) -> dict[str, Any]:
    """What crops depend on."""
    data = dataclasses.asdict(config.data)
    others = ("batch", "accumulation", "patch", "workers", "cache", "seed")
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in data.items() if k not in others and v is not None}
    named: dict[str, Any] = named_paths({**plain, "seed": config.data_seed})
    return named


def _named(about: dict[str, Any]) -> dict[str, Any]:
    return {k: about[k] for k in ("teacher", "licence", "sha256")}


def _small(sample: Any) -> torch.Tensor:
    small: torch.Tensor | None = sample.small
    if small is None or tuple(SCALE * n for n in small.shape[-2:]) != tuple(sample.hq.shape[-2:]):
        raise TrainingError(f"a teacher enlarges by {SCALE}: data.degradation must make LQ pictures of a quarter")
    return small


__all__ = ["REAL_ESRGAN", "make_taught", "untaught", "write_lq_crops"]
