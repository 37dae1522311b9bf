"""Files of ``torch.save``: the zip's directory, and the pickle in it."""

from __future__ import annotations

import io
import pickletools
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import archives as kit
import torch

from pgp_core.errors import PGPError
from pgp_core.files.weights import open_weights
from pgp_core.unet.inspect import inspect_unet

from . import hostile
from .prepared import Prepared


def _open(path: Path) -> None:
    with open_weights(path) as file:
        for key in file.shapes:
            value = file.read(key)
            # All of it lies in the file.
            assert float(value.double().nan_to_num().abs().sum()) >= 0
        with suppress(PGPError):
            inspect_unet(file)


def archive(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """Records that are not where, or as long, as the directory says."""
    entries = list(prepared.archive)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(entries))
        entry = entries[at]
        size = rng.choice((0, 1, len(entry.data) - 1, len(entry.data) + 1, 1 << 20, 1 << 32, 1 << 40, (1 << 63) - 1))
        changes: dict[str, Any] = rng.choice((
            {"size": size}, {"offset": rng.choice((0, 1, 30, 1 << 20, 1 << 33, (1 << 63) - 1))},
            {"flags": rng.randrange(1 << 16)},
            {"local_method": rng.choice((8, 99))}, {"local_name": rng.choice(("", "x", "y" * 300))},
            {"name": rng.choice(("archive/data.pkl", "archive/data/0", "", "../x", "archive/version"))},
            {"data": hostile.spoilt(rng, entry.data) if entry.data else b"x"}, {"data": b""},
        ))  # fmt: skip
        if rng.randrange(6) == 0:
            entries[at] = kit.packed([entry])[0]
        elif rng.randrange(8) == 0:
            entries.append(entry)
        elif rng.randrange(8) == 0:
            del entries[at]
        else:
            entries[at] = replace(entry, **changes)
        if not entries:
            return
    path = kit.write(folder / "weights.bin", entries)
    if rng.randrange(4) == 0:
        data = path.read_bytes()
        path.write_bytes(hostile.spoilt(rng, data, range(max(0, len(data) - 700), len(data))))
    _open(path)


def pickled(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A pickle whose steps are changed, doubled or left out; in an archive, or in the older format."""
    weights = {f"a.{i}": torch.arange(3.0 + i) for i in range(3)}
    path = folder / "weights.bin"
    if rng.randrange(4) == 0:
        buffer = io.BytesIO()
        torch.save(weights, buffer, _use_new_zipfile_serialization=False)
        path.write_bytes(hostile.spoilt(rng, buffer.getvalue()))
    else:
        entries = kit.changed(list(prepared.archive), "data.pkl", lambda e: replace(e, data=_steps(rng, e.data)))
        kit.write(path, entries)
    _open(path)


def _steps(rng: random.Random, data: bytes) -> bytes:
    steps = list(_parts(data))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(steps))
        how = rng.randrange(6)
        if how == 0:
            del steps[at]
        elif how == 1:
            steps.insert(at, steps[rng.randrange(len(steps))])
        elif how == 2:
            steps[at] = hostile.spoilt(rng, steps[at]) if steps[at] else b"."
        elif how == 3:
            other = rng.randrange(len(steps))
            steps[at], steps[other] = steps[other], steps[at]
        elif how == 4:
            names = (b"cos\nsystem\n", b"cbuiltins\nbytearray\n", b"ctorch\nload\n", b"cbuiltins\neval\n",
                     b"ctorch\nempty\n", b"ctorch._utils\n_rebuild_sparse_tensor\n")  # fmt: skip
            steps.insert(at, rng.choice(names))
        else:
            # LONG1, BININT, memo far away, deep marks, an int of 5,000 digits.
            numbers = (b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"J\xff\xff\xff\xff", b"r\xff\xff\xff\x7f", b"(" * 3000,
                       b"I" + b"9" * 5000 + b"\n", b"]" * 3000, b"K\x00", b"N", b"R", b"0")  # fmt: skip
            steps.insert(at, rng.choice(numbers))
        if not steps:
            return b"."
    return b"".join(steps)


def _parts(data: bytes) -> Iterator[bytes]:
    starts = [at for _, _, at in pickletools.genops(data) if at is not None]
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        yield data[start:end]
