"""What a run of training left behind, and somebody changed."""

from __future__ import annotations

import copy
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from toy_runs import batches, toy_runner

from pgp_core.training.journal import Journal, read_rows
from pgp_core.training.painting import _painted
from pgp_core.training.state import read_step

from . import hostile
from .prepared import Prepared


def log(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A log, gone on with."""
    rows = [{"step": i, "loss": 0.5, "lr": 1e-3, "grad_norm": 1.0, "skipped": 0} for i in range(4)]
    lines = [hostile.text_of(rng, hostile.changed(rng, row)) if rng.randrange(2) else json.dumps(row) for row in rows]
    path = folder / "log.jsonl"
    path.write_bytes(hostile.written("\n".join(line.replace("\n", " ") for line in lines)))
    journal = Journal(path, 2)
    journal.write({"step": 3, "loss": 1.0})
    journal.close()
    assert read_rows(path)[-1] == {"step": 3, "loss": 1.0}


def state(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A checkpoint: looked at, taken up, and gone on with to the end."""
    data: Any = {k: copy.deepcopy(v) for k, v in prepared.state.items()}
    for _ in range(rng.randint(1, 2)):
        data = _changed(rng, data)
    path = folder / "run" / "state.pt"
    path.parent.mkdir()
    buffer = io.BytesIO()
    try:
        torch.save(data, buffer, _use_new_zipfile_serialization=rng.randrange(5) != 0)
    except (RecursionError, ValueError, TypeError, RuntimeError, OverflowError):
        return
    content = buffer.getvalue()
    path.write_bytes(hostile.spoilt(rng, content) if rng.randrange(3) == 0 else content)
    assert read_step(path) >= 0
    runner = toy_runner(folder / "run", run_steps=3, run_save_every=3)
    runner.resume()
    if runner.step >= 2:
        runner.run(batches, progress=False)


def _changed(rng: random.Random, data: Any) -> Any:
    """A checkpoint with one place replaced, whatever stands there."""
    places: list[tuple[Any, Any]] = []

    def look(holder: Any) -> None:
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            places.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                look(holder[key])

    if not isinstance(data, dict) or not data:
        return data
    look(data)
    holder, key = rng.choice(places)
    old = holder[key]
    tensors = [torch.zeros(3), torch.zeros(0), torch.full((8, 12), float("nan")), torch.zeros(8, 12).int(),
               torch.zeros(1, 1, 1), torch.zeros(12).half(), torch.zeros(1).expand(10**6)]  # fmt: skip
    how = rng.randrange(5)
    if how == 0:
        holder.pop(key)
    elif how == 1:
        holder[key] = rng.choice(tensors)
    elif how == 2 and isinstance(old, torch.Tensor):
        holder[key] = rng.choice(
            (old.double(), old.flatten(), old.flatten()[:1], old.to_sparse(), old.bool(), old.tolist())
        )
    else:
        holder[key] = hostile.value(rng)
    return data


def painted(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """The set of painted pictures."""
    buffer = io.BytesIO()
    kind = rng.choice(("uint8", "uint8", "uint8", "float32", "int64", "<U3", "bool"))
    np.save(buffer, np.zeros(rng.choice(((2, 8, 8, 3), (2, 8, 8, 3), (2, 8, 8), (0,), ())), kind))
    data = buffer.getvalue()
    header = data[:128]
    how = rng.randrange(4)
    if how == 0:
        odd = (b"9" * 40, b"-1", b"1e9", b"None", b"__import__('os')")
        header = header.replace(b"8", rng.choice(odd), 1)
    elif how == 1:
        header = header.replace(b"|u1", b"|O", 1)
    elif how == 2:
        header = hostile.spoilt(rng, header)
    path = folder / "pictures.npy"
    path.write_bytes(header + data[128:])
    have = _painted(str(path))
    assert have.dtype == np.uint8 and have.ndim == 4
