"""Checkpoints of a run: written whole or not at all, read without executing anything."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, TrainingError
from ..files.atomic import replacing
from ..files.boundary import first_line, parsing
from ..files.json_format import loads
from ..files.torch_file import load_torch_file

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
    advice = "delete it to start this run again"
    state, _ = load_torch_file(path, advice)
    with parsing(path, CheckpointError, advice):
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise TypeError("it has another format")
        theirs = dict(loads(state["signature"]))
        # The file is mapped, and the next checkpoint takes its name.
        state = _copied(state)
    check_signature(theirs, signature, path)
    return state


def read_step(path: Path) -> int:
    """Steps in a checkpoint of any run; 0 where there is none that can be read."""
    try:
        state, _ = load_torch_file(path, device="meta")
        return max(0, int(state["step"]))
    except Exception:
        return 0


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return type(value)(map(_copied, value)) if isinstance(value, (list, tuple)) else value


def check_kinds(state: Mapping[str, Any]) -> None:
    """Whether a checkpoint has what a run takes from it, each of its kind.

    Raises:
        KeyError, TypeError, ValueError: if not.
    """
    kinds: dict[str, Any] = {"step": int, "seconds": (int, float), "skipped": int, "window": list, "weights": dict}
    kinds["optimizer"] = dict
    if "adversary" in state:
        kinds["adversary"] = dict
    if "ema" in state:
        kinds |= {"ema": dict, "ema_updates": int}
    for key, kind in kinds.items():
        if not isinstance(state[key], kind) or isinstance(state[key], bool):
            raise TypeError(f"its {key} is a {type(state[key]).__name__}")
    numbers = [state["step"], state["seconds"], state["skipped"], *state["window"]]
    if not all(isinstance(x, (int, float)) for x in numbers):
        raise TypeError("its losses are no numbers")
    if not all(math.isfinite(x) and x >= 0 for x in numbers[:3]):
        raise ValueError("it counts wrong")
    for name in {"weights", "ema"} & state.keys():
        if not all(isinstance(v, torch.Tensor) for v in state[name].values()):
            raise TypeError(f"its {name} are no tensors")


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
        # PyTorch's writer names a line of its own source instead of the system's reason.
        return "the disk took only a part of it"
    return first_line(e)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
