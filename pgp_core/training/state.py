"""Checkpoints of a run: whole or not there, read without executing anything."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..atomic import replacing
from ..errors import CheckpointError, TrainingError
from ..json_format import loads

FORMAT = 2


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain data to a temporary name, then rename.

    Raises:
        TrainingError: if it cannot be written; what was there before stays.
    """
    try:
        with replacing(path) as temporary:
            torch.save({"format": FORMAT, **state}, temporary)
            _to_disk(temporary)
    # PyTorch's own writer says RuntimeError where a disk is full.
    except (OSError, RuntimeError) as e:
        kept = "the checkpoint before it is kept" if path.exists() else "there is none yet"
        raise TrainingError(
            f"the checkpoint {path} cannot be written ({_reason(e)}); {kept}: make room and run the same command again"
        ) from None


def load_state(path: Path, signature: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last checkpoint, or None where there is none.

    Args:
        signature: what the run is, flat plain data; see :func:`check_signature`.

    Raises:
        CheckpointError: if it is damaged, or of another run.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise RuntimeError("it has another format")
        theirs = loads(state["signature"])
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, KeyError) as e:
        raise CheckpointError(f"{path} is damaged ({_reason(e)}): delete it to start this run again") from None
    check_signature(theirs, signature, path)
    return state


def check_signature(theirs: Mapping[str, Any], ours: Mapping[str, Any], path: Path) -> None:
    """Is a checkpoint this run's?

    Raises:
        CheckpointError: naming the first difference.
    """
    ours = json.loads(json.dumps(ours))
    for key in sorted({*theirs, *ours}):
        there, here = theirs.get(key), ours.get(key)
        if there != here:
            if isinstance(there, dict) and isinstance(here, dict):
                # Of a plan, only the stacks that differ.
                there, here = ({k: v for k, v in a.items() if b.get(k) != v} for a, b in ((there, here), (here, there)))
            raise CheckpointError(
                f"{path} is not from this run: there {key} is {_shown(there)}, now {_shown(here)}; "
                "choose another run.folder, or delete it to start again"
            )


def _to_disk(path: Path) -> None:
    """Past the page cache: a rename must not overtake what it names when the power fails."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _reason(e: BaseException) -> str:
    if isinstance(e, OSError) and e.strerror:
        return e.strerror
    if any(word in str(e) for word in ("inline_container", "PytorchStreamWriter")):
        # Its writer names a line of its own source instead of the system's reason.
        return "the disk took only a part of it"
    return (str(e).strip().splitlines() or [type(e).__name__])[0]


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
