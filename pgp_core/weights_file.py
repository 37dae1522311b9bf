"""Weight files of others, read lazily: names and shapes first, tensors one by one. Nothing is ever unpickled."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open

from .boundary import first_line
from .errors import CheckpointError, name_some
from .safetensors_header import check_header
from .torch_file import load_torch_file

#: Bytes of a mapped file that may be in memory beside what they become.
_GROUP = 1 << 28
#: Floating types that weights may have; safetensors' names of them.
FLOATS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
#: Keys under which trainers wrap a state dict.
_WRAPPERS = ("state_dict", "module", "model")


@dataclass(frozen=True)
class WeightsFile:
    """An open file.

    Attributes:
        name: the file's name, for messages.
        shapes: of every tensor.
        floating: names of those whose type is one of :data:`FLOATS`.
        metadata: of a safetensors file.
        read: one tensor by name, on the CPU; may be a view of the mapped file. Raises CheckpointError where the
            file's type cannot be read.
        mapped: whether the file is read as it is asked for; else the whole is in memory.
        dtypes: of the tensors in ``floating``; empty where the reader does not say.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    floating: frozenset[str]
    read: Callable[[str], torch.Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    mapped: bool = True
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)


def check_file(path: Path) -> None:
    """Refuse what is no file of weights at first sight.

    Raises:
        CheckpointError: if there is no file, or it is a folder, empty, or GGUF.
    """
    if "\0" in str(path):
        raise CheckpointError(f"there is no file {path}: no name holds a null character")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: choose a file")
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: it is missing or was moved")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as e:
        raise CheckpointError(f"{path} cannot be read: {e.strerror or e}") from None
    if not start:
        raise CheckpointError(f"{path.name} is empty: get it again")
    if start == b"GGUF":
        raise CheckpointError(
            f"{path.name} is quantised (GGUF): take the unquantised file and choose weight_dtype fp8 to save memory"
        )


def count_numbered(names: Iterable[str], pattern: str) -> int:
    """How many parts a file's names count, from 0: one more than the largest number in the pattern's first group."""
    return max((int(m[1]) for k in names if (m := re.match(pattern, k))), default=-1) + 1


@contextmanager
def open_weights(path: str | os.PathLike[str]) -> Iterator[WeightsFile]:
    """Open a ``.safetensors`` or ``.sft`` file, or one of ``torch.save`` (``.bin``, ``.pt``, ``.pth``, ``.ckpt``).

    Files are mapped into memory, not read; of ``torch.save``'s older format, which cannot be mapped, the whole
    is read.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything but tensors.
    """
    path = Path(path)
    check_file(path)
    if path.suffix.lower() in (".safetensors", ".sft"):
        with _open_safetensors(path) as file:
            yield file
    else:
        yield _open_torch(path)


@contextmanager
def _open_safetensors(path: Path) -> Iterator[WeightsFile]:
    try:
        check_header(path)
        with safe_open(path, framework="pt") as f:
            slices = {k: f.get_slice(k) for k in f.keys()}  # noqa: SIM118
            shapes = {k: tuple(s.get_shape()) for k, s in slices.items()}
            named = {name: dtype for dtype, name in FLOATS.items()}
            dtypes = {k: named[s.get_dtype()] for k, s in slices.items() if s.get_dtype() in named}
            metadata = dict(f.metadata() or {})
    # The library lets errors of other kinds through too, and more with every release.
    except Exception as e:
        raise CheckpointError(
            f"{path.name} is damaged or no safetensors file ({first_line(e)}): get it again"
        ) from None
    with safe_open(path, framework="pt") as f:

        def read(key: str) -> torch.Tensor:
            try:
                tensor: torch.Tensor = f.get_tensor(key)
            # Types that this PyTorch lacks, and packed ones; errors differ between versions.
            except Exception as e:
                raise CheckpointError(f"{path.name}: {key} cannot be read ({first_line(e)})") from None
            return tensor

        yield WeightsFile(path.name, shapes, frozenset(dtypes), read, metadata, dtypes=dtypes)


def _open_torch(path: Path) -> WeightsFile:
    data, mapped = load_torch_file(path)
    for wrapper in _WRAPPERS:
        if isinstance(data, dict) and isinstance(data.get(wrapper), dict):
            data = data[wrapper]
    if not isinstance(data, dict) or not data:
        raise CheckpointError(f"{path.name} holds no weights")
    weights = {k: v for k, v in data.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not weights:
        raise CheckpointError(f"{path.name} holds no weights")
    odd = [k for k, v in weights.items() if v.layout != torch.strided or v.is_meta]
    if odd:
        raise CheckpointError(f"{path.name} holds sparse tensors or tensors without values: {name_some(odd)}")
    # Parameters would ask for gradients, and views that negate cannot be written.
    weights = {k: v.detach().resolve_neg() for k, v in weights.items()}
    dtypes = {k: v.dtype for k, v in weights.items() if v.dtype in FLOATS}
    return WeightsFile(
        path.name,
        {k: tuple(v.shape) for k, v in weights.items()},
        frozenset(dtypes),
        weights.__getitem__,
        mapped=mapped,
        dtypes=dtypes,
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
