"""Crops with a teacher's answer: one safetensors file that is written crop by crop, and mapped when it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from safetensors import safe_open

from ..errors import TrainingError
from ..files.boundary import first_line
from ..files.json_format import loads
from ..files.safetensors_header import check_header

METADATA_KEY = "pgp.teacher"
FORMAT, VERSION = "pgp-diffsr/teacher-crops", 1
#: What there is of each crop, ``(N, size, size, 3)`` uint8: HQ, LQ canvas, the teacher's enlargement of LQ.
PARTS = ("hq", "lq", "taught")
#: Which crops are there, ``(N,)`` uint8.
DONE = "done"
_AGAIN = "make it again with pgp-diffsr train teacher"


@dataclass(frozen=True)
class Taught:
    """A finished file, mapped.

    Attributes:
        hq, lq, taught: see :data:`PARTS`.
        about: what the file says of itself: teacher, licence, sha256, scale, data.
    """

    path: Path
    hq: np.ndarray
    lq: np.ndarray
    taught: np.ndarray
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.hq)

    @property
    def size(self) -> int:
        """The crops' side, HQ pixels."""
        return int(self.hq.shape[1])


def read_taught(path: Path) -> Taught:
    """Map a file.

    Raises:
        TrainingError: if it is not there, not finished, damaged, or another kind of file.
    """
    if not path.is_file():
        begun = ", which is begun" if part_of(path).exists() else ""
        raise TrainingError(f"there are no teacher's crops in {path}{begun}: make them with pgp-diffsr train teacher")
    try:
        check_header(path)
        with safe_open(path, framework="np") as file:
            about = loads((file.metadata() or {})[METADATA_KEY])
        if about["format"] != FORMAT or about["version"] != VERSION:
            raise ValueError(f"it is {about['format']!r}, version {about['version']!r}")
        if not isinstance(about["scale"], int) or about["scale"] < 1:
            raise ValueError(f"its scale is {about['scale']!r}")
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(length))
        arrays = {name: _mapped(path, 8 + length, header[name]) for name in PARTS}
        count, size = arrays["hq"].shape[:2]
        if count < 2 or any(a.shape != (count, size, size, 3) for a in arrays.values()):
            raise ValueError("its crops are of several shapes")
    # Whatever a damaged file makes of it.
    except Exception as e:
        raise TrainingError(f"{path} is damaged, or holds no teacher's crops ({first_line(e)}): {_AGAIN}") from None
    return Taught(path, **arrays, about=about)


def part_of(path: Path) -> Path:
    """Where the file is until it is finished."""
    return path.with_name(path.name + ".part")


class TaughtWriter:
    """A file in the making; the same call again goes on with it. It has its name once all crops are in it.

    Args:
        about: what the file says of itself, JSON data; another run's file is not gone on with.

    Raises:
        TrainingError: if another run's is there, or it cannot be written.
    """

    def __init__(self, path: Path, count: int, size: int, about: Mapping[str, Any]):
        self.path, self.part, self.count, self.size = path, part_of(path), count, size
        said = json.dumps({"format": FORMAT, "version": VERSION, **about}, sort_keys=True)
        header, self._offsets, length = _header(count, size, said)
        self._file: BinaryIO
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self.part.exists():
                with self.part.open("wb") as file:
                    file.write(header)
                    file.truncate(length)
            self._file = self.part.open("r+b")
        except OSError as e:
            raise TrainingError(self._unwritable(e)) from None
        if self._file.read(len(header)) != header or os.fstat(self._file.fileno()).st_size != length:
            self._file.close()
            raise TrainingError(
                f"{self.part} was begun with other settings, or is damaged: delete it, or choose another teacher.file"
            )
        self._file.seek(self._offsets[DONE])
        self._done = np.frombuffer(self._file.read(count), np.uint8).copy()

    def __enter__(self) -> TaughtWriter:
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._file.close()

    @property
    def missing(self) -> list[int]:
        """Numbers of the crops that are not there yet."""
        return [int(n) for n in np.flatnonzero(self._done != 1)]

    def write(self, number: int, parts: Mapping[str, np.ndarray]) -> None:
        """Put a crop in its place; it counts once all of it is there.

        Raises:
            TrainingError: if it cannot be written.
        """
        try:
            for name in PARTS:
                crop = np.ascontiguousarray(parts[name])
                assert crop.shape == (self.size, self.size, 3) and crop.dtype == np.uint8
                self._file.seek(self._offsets[name] + number * crop.nbytes)
                self._file.write(crop.tobytes())
            self._file.flush()
            self._file.seek(self._offsets[DONE] + number)
            self._file.write(b"\1")
            self._file.flush()
        except OSError as e:
            raise TrainingError(self._unwritable(e)) from None
        self._done[number] = 1

    def finish(self) -> None:
        """Give the file its name.

        Raises:
            TrainingError: if it cannot be written.
        """
        assert not self.missing
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.part, self.path)
        except OSError as e:
            raise TrainingError(self._unwritable(e)) from None

    def _unwritable(self, e: OSError) -> str:
        return f"{self.part} cannot be written ({e.strerror or e}): make room; the same command goes on"


def _header(count: int, size: int, said: str) -> tuple[bytes, dict[str, int], int]:
    """The file's first bytes, where each tensor begins, and the file's length."""
    shapes = {**dict.fromkeys(PARTS, (count, size, size, 3)), DONE: (count,)}
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: said}}
    offset, begins = 0, {}
    for name, shape in shapes.items():
        begins[name], length = offset, int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [offset, offset + length]}
        offset += length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {k: start + v for k, v in begins.items()}, start + offset


def _mapped(path: Path, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    if entry["dtype"] != "U8":
        raise ValueError(f"its crops are {entry['dtype']}")
    return np.memmap(path, np.uint8, "r", start + entry["data_offsets"][0], tuple(entry["shape"]))
