"""What mutations are made from and with: the good files, a file to write, a safetensors file taken apart."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BIN, TWIN = "FaithDiff.bin", "FaithDiff.safetensors"
UNET, GUIDANCE, NANO = "unet.safetensors", "guidance.safetensors", "nano.safetensors"
BASES = (BIN, TWIN, UNET, GUIDANCE, NANO)


@dataclass(frozen=True)
class Mutation:
    """One file to write.

    Attributes:
        name: for the file, without its ending.
        base: which of :data:`BASES` it is made from.
        write: makes it at a path.
    """

    name: str
    base: str
    write: Callable[[Path], None]

    @property
    def file(self) -> str:
        """The file's name; its ending is the base's."""
        return self.name + Path(self.base).suffix


@dataclass
class Raw:
    """A safetensors file taken apart, so that files can be written that the library would not write."""

    entries: dict[str, tuple[str, list[int], bytes]]
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Raw:
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        body = memoryview(data)[8 + length :]
        return cls(
            {k: (v["dtype"], v["shape"], bytes(body[slice(*v["data_offsets"])])) for k, v in header.items()}, metadata
        )

    def header(self) -> dict[str, Any]:
        result: dict[str, Any] = {"__metadata__": self.metadata} if self.metadata else {}
        offset = 0
        for key, (dtype, shape, data) in self.entries.items():
            result[key] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
            offset += len(data)
        return result

    def write(self, path: Path, header: Any = None, text: bytes | None = None, length: int | None = None) -> None:
        """Write it; header, its text or its length may be false."""
        if text is None:
            text = json.dumps(self.header() if header is None else header).encode()
            text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write((len(text) if length is None else length).to_bytes(8, "little"))
            file.write(text)
            for _, _, data in self.entries.values():
                file.write(data)

    def copy(self) -> Raw:
        return Raw(dict(self.entries), copy.deepcopy(self.metadata))


def stem(base: str, what: str) -> str:
    return f"{Path(base).stem}-{Path(base).suffix[1:4]}-{what}"


def put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def flipped(data: bytes, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for at, bit in flips:
        changed[at] ^= bit
    return bytes(changed)
