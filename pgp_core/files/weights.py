"""Weight files of others, read lazily: names and shapes first, tensors one by one. Nothing is ever unpickled."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..errors import CheckpointError, name_some
from .boundary import first_line
from .diffusers_folder import FoundWeights, find_weights
from .finite import is_finite, not_finite
from .kinds import LENGTH, is_safetensors, is_torch, refuse_others
from .prefixes import without_wrappers
from .safetensors_header import check_header
from .scaled_fp8 import without_scales
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
#: How deep trainers wrap state dicts in each other.
_DEEPEST = 6


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
        scheduler: settings of the scheduler of the diffusers folder that the file lies in; empty where it lies in none.
        notes: what is to be said of the file, a line each.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    floating: frozenset[str]
    read: Callable[[str], torch.Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    mapped: bool = True
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_file(path: Path) -> bytes:
    """Refuse what is no file of weights at first sight.

    Returns:
        the file's first bytes.

    Raises:
        CheckpointError: if there is no file, or it is a folder, empty, or of a kind that holds no weights.
    """
    if "\0" in str(path):
        raise CheckpointError(f"there is no file {path}: no name holds a null character")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: choose a file")
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: it is missing or was moved")
    try:
        with path.open("rb") as file:
            start = file.read(LENGTH)
    except OSError as e:
        raise CheckpointError(f"{path} cannot be read: {e.strerror or e}") from None
    if not start:
        raise CheckpointError(f"{path.name} is empty: get it again")
    refuse_others(path, start)
    return start


def count_numbered(names: Iterable[str], pattern: str) -> int:
    """How many parts a file's names count, from 0: one more than the largest number in the pattern's first group."""
    return max((int(m[1]) for k in names if (m := re.match(pattern, k))), default=-1) + 1


@contextmanager
def open_weights(path: str | os.PathLike[str], part: str = "unet") -> Iterator[WeightsFile]:
    """Open a ``.safetensors`` or ``.sft`` file, or one of ``torch.save`` (``.bin``, ``.pt``, ``.pth``, ``.ckpt``); a
    folder of diffusers; an index of shards, or one shard, for all of them.

    Files are mapped into memory, not read; of ``torch.save``'s older format, which cannot be mapped, the whole
    is read. Names come without what wrappers of modules add to them, fp8 weights multiplied by their scales.

    Args:
        part: the component that is taken of a folder that holds a whole pipeline.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything but tensors.
    """
    found = find_weights(Path(path), part)
    with ExitStack() as stack:
        yield together([stack.enter_context(_open_file(p)) for p in found.files], found)


def together(files: Sequence[WeightsFile], found: FoundWeights) -> WeightsFile:
    """The open files of one model as one, as :func:`open_weights` gives it.

    Raises:
        CheckpointError: if a tensor is in more than one, or under two names.
    """
    holder: dict[str, WeightsFile] = {}
    for file in files:
        if twice := holder.keys() & file.shapes.keys():
            raise CheckpointError(f"{found.name} has {name_some(twice)} in two of its files: get them again")
        holder |= dict.fromkeys(file.shapes, file)
    joined = WeightsFile(
        found.name,
        {key: file.shapes[key] for key, file in holder.items()},
        frozenset(key for key, file in holder.items() if key in file.floating),
        lambda key: holder[key].read(key),
        {key: text for file in reversed(files) for key, text in file.metadata.items()},
        all(file.mapped for file in files),
        {key: file.dtypes[key] for key, file in holder.items() if key in file.dtypes},
        found.scheduler,
        (found.note,) if found.note else (),
    )
    return without_scales(without_wrappers(joined))


@contextmanager
def _open_file(path: Path) -> Iterator[WeightsFile]:
    """One file, by what it begins with where that says it, else by its ending."""
    start = check_file(path)
    named = path.suffix.lower() in (".safetensors", ".sft")
    if named and is_torch(start):
        # PyTorch goes by the name.
        raise CheckpointError(f"{path.name} is a PyTorch file under another name: rename it to {path.stem}.bin")
    if named or is_safetensors(start):
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
    weights = dict(_tensors(data))
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


def _tensors(data: Any, before: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of state dicts that trainers nest in each other, named by the path to them."""
    if not isinstance(data, dict) or depth > _DEEPEST:
        return
    for key, value in data.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, torch.Tensor):
            yield before + key, value
        else:
            yield from _tensors(value, f"{before}{key}.", depth + 1)


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

    Raises:
        CheckpointError: if one holds NaN or infinity, or too large numbers for the type.
    """
    todo, out = list(names), {}
    while todo:
        with opened() as file:
            read = 0
            while todo and (read < _GROUP or not file.mapped):
                key = todo.pop(0)
                tensor = file.read(key)
                read += tensor.nbytes
                converted = tensor.to(device, dtype, copy=True)
                if not is_finite(converted):
                    raise CheckpointError(not_finite(file.name, key, tensor, dtype))
                out[names[key]] = converted
                del tensor, converted
    return out
