"""Reading and writing safetensors: clear errors, atomic writes. Nothing is ever unpickled here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import CheckpointError, PGPError, name_some
from .atomic import replacing
from .boundary import first_line
from .finite import is_finite
from .safetensors_header import check_header


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a file, on the CPU.

    Raises:
        CheckpointError: if the file is missing, truncated or no safetensors.
    """
    path = Path(path)
    if "\0" in str(path) or not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        check_header(path)
        with safe_open(path, framework="pt") as f:
            return {k: f.get_tensor(k) for k in f.keys()}, dict(f.metadata() or {})  # noqa: SIM118
    # The library lets errors of other kinds through too, and more with every release.
    except Exception as e:
        why = first_line(e)
        raise CheckpointError(f"{path.name} is damaged or no safetensors file ({why}): get it again") from None


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write to a temporary file beside the target, then rename: no half-written file ever has the name.

    Raises:
        CheckpointError: if it cannot be written; nothing is left behind.
    """
    # Safetensors refuses tensors that share memory.
    seen: set[int] = set()
    own = {}
    for k, v in tensors.items():
        v = v.contiguous()
        own[k] = v.clone() if v.untyped_storage().data_ptr() in seen else v
        seen.add(v.untyped_storage().data_ptr())
    try:
        with replacing(path) as temporary:
            save_file(own, temporary, dict(metadata or {}))
    # Invalid text (half of a surrogate pair) raises a TypeError or another error, depending on the release.
    except (OSError, SafetensorError, UnicodeError, TypeError, ValueError) as e:
        raise CheckpointError(f"{path} cannot be written: {_why(e)}") from None


def _why(error: Exception) -> str:
    """Without the temporary file's name, which says nothing to anyone."""
    return error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)


def check_same(
    expected: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, torch.Tensor],
    source: str,
    error: type[PGPError] = CheckpointError,
) -> None:
    """Check that a file holds exactly the weights that a module expects.

    Args:
        expected: names and shapes.
        weights: the file's tensors.
        source: what to call the file.
        error: class to raise.

    Raises:
        PGPError: naming the first few keys that are missing, foreign, of another shape, or no floating-point
            numbers, and how many.
    """
    missing = [k for k in expected if k not in weights]
    foreign = [k for k in weights if k not in expected]
    wrong = []
    if missing:
        wrong.append(f"it lacks {name_some(missing)}")
    if foreign:
        wrong.append(f"it has keys that do not belong there: {name_some(foreign)}")
    if wrong:
        raise error(f"{source} does not fit: {'; '.join(wrong)}")
    shapes = [k for k in expected if tuple(weights[k].shape) != tuple(expected[k])]
    if shapes:
        k = shapes[0]
        raise error(f"{source} does not fit: {k} has shape {tuple(weights[k].shape)}, expected {tuple(expected[k])}")
    whole = [k for k in expected if not weights[k].is_floating_point()]
    if whole:
        raise error(f"{source} does not fit: these tensors hold no floating-point numbers: {name_some(whole)}")


def check_finite(weights: Mapping[str, torch.Tensor], source: str, error: type[PGPError] = CheckpointError) -> None:
    """Check that weights are numbers.

    Raises:
        PGPError: of the class given, naming the first few that hold NaN or infinity, and how many.
    """
    broken = [k for k, v in weights.items() if not is_finite(v)]
    if broken:
        raise error(f"{source} has weights that are not finite ({name_some(broken)}): get it again")


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(f)


def _digest(f: object) -> str:
    """Python 3.10 has no ``file_digest``."""
    h = hashlib.sha256()
    while chunk := f.read(1 << 20):  # type: ignore[attr-defined]
        h.update(chunk)
    return h.hexdigest()
