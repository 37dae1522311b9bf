"""Weight files of others, read lazily: names and shapes first, tensors one by one. Nothing is ever unpickled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import CheckpointError

#: safetensors' names of floating types that weights may have.
_FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
#: Bytes of a mapped file that may be in memory beside what they become.
_GROUP = 1 << 28
#: Keys under which trainers wrap a state dict.
_WRAPPERS = ("state_dict", "module", "model")


@dataclass(frozen=True)
class WeightsFile:
    """An open file.

    Attributes:
        name: the file's name, for messages.
        shapes: of every tensor.
        floating: names of those that hold floating-point numbers.
        metadata: of a safetensors file.
        read: one tensor by name, on the CPU; may be a view of the mapped file.
        mapped: whether the file is read as it is asked for; else the whole is in memory.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    floating: frozenset[str]
    read: Callable[[str], torch.Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    mapped: bool = True


@contextmanager
def open_weights(path: str | os.PathLike[str]) -> Iterator[WeightsFile]:
    """Open a ``.safetensors`` or ``.sft`` file, or one of ``torch.save`` (``.bin``, ``.pt``, ``.pth``, ``.ckpt``).

    Files are mapped into memory, not read; of ``torch.save``'s older format, which cannot be mapped, the whole
    is read.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    if path.suffix.lower() in (".safetensors", ".sft"):
        with _open_safetensors(path) as file:
            yield file
    else:
        yield _open_torch(path)


@contextmanager
def _open_safetensors(path: Path) -> Iterator[WeightsFile]:
    try:
        with safe_open(path, framework="pt") as f:
            slices = {k: f.get_slice(k) for k in f.keys()}  # noqa: SIM118
            shapes = {k: tuple(s.get_shape()) for k, s in slices.items()}
            floating = frozenset(k for k, s in slices.items() if s.get_dtype() in _FLOATS)
            metadata = dict(f.metadata() or {})
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{path.name} is damaged or no safetensors file ({e}): get it again") from None
    with safe_open(path, framework="pt") as f:
        yield WeightsFile(path.name, shapes, floating, f.get_tensor, metadata)


def _open_torch(path: Path) -> WeightsFile:
    def load(mmap: bool) -> Any:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)

    mapped = True
    try:
        try:
            data = load(True)
        except RuntimeError as e:
            if "mmap" not in str(e):
                raise
            mapped = False
            data = load(False)
    except UnpicklingError:
        raise CheckpointError(
            f"{path.name} holds more than weights, so it is not opened: unpickling could run anything"
        ) from None
    # torch.load lets errors of every kind through where a file is damaged.
    except Exception as e:
        first = (str(e).splitlines() or [repr(e)])[0]
        raise CheckpointError(f"{path.name} is damaged or no PyTorch file ({first}): get it again") from None
    for wrapper in _WRAPPERS:
        if isinstance(data, dict) and isinstance(data.get(wrapper), dict):
            data = data[wrapper]
    if not isinstance(data, dict) or not data:
        raise CheckpointError(f"{path.name} holds no weights")
    weights = {k: v for k, v in data.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not weights:
        raise CheckpointError(f"{path.name} holds no weights")
    return WeightsFile(
        path.name,
        {k: tuple(v.shape) for k, v in weights.items()},
        frozenset(k for k, v in weights.items() if v.is_floating_point()),
        weights.__getitem__,
        mapped=mapped,
    )


def read_converted(
    opened: Callable[[], AbstractContextManager[WeightsFile]],
    names: Mapping[str, str],
    device: torch.device | str,
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    """Copies of some of a file's tensors, converted one by one.

    Memory peaks at little more than the result: pages of a mapped file count as the process's own until it is
    closed, so it is opened anew after every :data:`_GROUP` bytes.

    Args:
        opened: opens the file, as often as it is called.
        names: the file's names, and what they are to be called.
    """
    todo, out = list(names), {}
    while todo:
        with opened() as file:
            read = 0
            while todo and (read < _GROUP or not file.mapped):
                key = todo.pop(0)
                tensor = file.read(key)
                read += tensor.nbytes
                out[names[key]] = tensor.to(device, dtype, copy=True)
                del tensor
    return out
