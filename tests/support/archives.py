"""Archives of ``torch.save`` that lie, written byte by byte: what zip's own library would not write."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Entry:
    """A record, and what its headers say of it.

    Attributes:
        local_method, local_name: in its own header, where that says something else than the directory.
        size: uncompressed and compressed, in the directory; None for the truth.
        offset: in the directory; None for the truth.
    """

    name: str
    data: bytes
    method: int = 0
    flags: int = 0
    local_method: int | None = None
    local_name: str | None = None
    size: int | None = None
    offset: int | None = None


def saved(weights: Any) -> list[Entry]:
    """What ``torch.save`` writes, taken apart."""
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return [Entry(i.filename, archive.read(i)) for i in archive.infolist()]


def packed(entries: list[Entry]) -> list[Entry]:
    """The same, deflated as a zip program does."""
    return [replace(e, data=_deflated(e.data), method=8, size=len(e.data)) for e in entries]


def changed(entries: list[Entry], ending: str, change: Callable[[Entry], Entry]) -> list[Entry]:
    """The same, with the first record of a name that ends so changed."""
    at = next(i for i, e in enumerate(entries) if e.name.endswith(ending))
    return [*entries[:at], change(entries[at]), *entries[at + 1 :]]


def write(path: Path, entries: list[Entry]) -> Path:
    """Write them; sizes beyond 4 GiB go into zip64 extras."""
    body, directory = io.BytesIO(), io.BytesIO()
    for entry in entries:
        at = body.tell()
        name = entry.name.encode()
        own = (entry.local_name or entry.name).encode()
        method = entry.method if entry.local_method is None else entry.local_method
        crc, stored = zlib.crc32(entry.data), len(entry.data)
        size = stored if entry.size is None else entry.size
        compressed = stored if entry.method or entry.size is None else entry.size
        where = at if entry.offset is None else entry.offset
        local = 20, entry.flags, method, 0, 0, crc, stored, stored, len(own), 0
        body.write(struct.pack("<4s5H3I2H", b"PK\x03\x04", *local) + own)
        body.write(entry.data)
        large = [n for n in (size, compressed, where) if n > 0xFFFFFFFF]
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        fits = (min(n, 0xFFFFFFFF) for n in (compressed, size))
        fields = (20, 20, entry.flags, entry.method, 0, 0, crc, *fits, len(name), len(extra), 0, 0, 0, 0)
        directory.write(struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *fields, min(where, 0xFFFFFFFF)) + name + extra)
    start, length = body.tell(), directory.tell()
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, len(entries), len(entries), length, start, 0)
    path.write_bytes(body.getvalue() + directory.getvalue() + end)
    return path


def _deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(data) + deflate.flush()


class Call:
    """Pickles as a call of something with arguments."""

    def __init__(self, function: Any, *arguments: Any):
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def pickled(value: Any) -> bytes:
    """As ``torch.save`` pickles: protocol 2."""
    return pickle.dumps(value, 2)
