"""``--dry-run``: what a run would train, on what, in how much memory. No weight is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from .building import empty, inspect
from .config import RunConfig
from .memory import memory
from .precision import fastest
from .sources import make_degradation, make_source, painted_path

Say = Callable[[str], None]


def preview(config: RunConfig, say: Say) -> dict[str, Any]:
    """Plain numbers: parameters, bytes, steps, crops.

    Raises:
        PGPError: as the run itself would for files that are missing or do not fit.
    """
    parts = inspect(config, say)
    on_gpu = config.run.device == "auto" and torch.cuda.is_available()
    full = config.model.kind == "sdxl"
    # A full-size run is meant for a card, wherever it is looked at.
    device = torch.device("cuda" if on_gpu else "cpu")
    precision = fastest(device) if config.run.precision == "auto" else config.run.precision
    subject = empty(parts, config)
    groups: dict[str, int] = {}
    for name, p in subject.named_parameters():
        if p.requires_grad:
            part = "lora" if ".lora_" in name else ".".join(name.split(".")[: 2 if name.startswith("guidance.") else 1])
            groups[part] = groups.get(part, 0) + p.numel()
    terms = memory(config, parts, precision, on_gpu or full)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    micro = config.data.batch * config.data.accumulation * processes
    return {
        "folder": str(config.run.folder),
        "plan": parts.plan.name,
        "params": sum(p.numel() for p in subject.parameters()),
        "trained": sum(groups.values()),
        "trained_parts": groups,
        "precision": precision,
        "memory_bytes": sum(terms.values()),
        "memory": terms,
        "estimated": ["activations", "workspace"],
        "steps": config.run.steps,
        "done": _done(config),
        "batch": {"micro": config.data.batch, "accumulation": config.data.accumulation, "processes": processes},
        "crops_a_step": micro,
        "crops": micro * config.run.steps,
        "data": _data(config),
    }


def rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people."""
    batch, data, terms = found["batch"], found["data"], found["memory"]
    parts = ", ".join(f"{k} {_millions(v)}" for k, v in found["trained_parts"].items())
    named = [f"{k.replace('_', ' ')} {_gigabytes(v)}" for k, v in terms.items() if v]
    told = [f"{t} (estimate)" if t.split(" ")[0] in found["estimated"] else t for t in named]
    return [
        ("folder", f"{found['folder']}" + (f", {found['done']} steps are done" if found["done"] else "")),
        ("plan", found["plan"]),
        ("parameters", f"{_millions(found['params'])}, trained {_millions(found['trained'])}: {parts}"),
        ("memory", f"{_gigabytes(found['memory_bytes'])} on each device, {found['precision']}"),
        *(("", t) for t in told),
        (
            "steps",
            f"{found['steps']} of {found['crops_a_step']} crops: {batch['micro']} x {batch['accumulation']} "
            f"accumulated x {batch['processes']} process{'es' if batch['processes'] > 1 else ''}",
        ),
        ("data", ", ".join(_told(k, v) for k, v in data.items() if v)),
    ]


def _told(name: str, value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} {name} skipped"
    return f"{name.replace('_', ' ')} {value}"


def _done(config: RunConfig) -> int:
    """Steps in the last checkpoint; whether it is this run's is seen when the run begins."""
    path = config.run.folder / "state.pt"
    if not path.exists():
        return 0
    try:
        return int(torch.load(path, weights_only=True, map_location="meta", mmap=True)["step"])
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError):
        return 0


def _data(config: RunConfig) -> dict[str, Any]:
    """What there is to train on; of pictures only headers and captions are read."""
    data = config.data
    if data.kind == "synthetic":
        make_degradation(config)
        path = painted_path(config)
        return {"pictures": data.pictures, "painted_already": path.exists(), "file": str(path)}
    return make_source(config).samples.summary().to_json()


def _millions(n: int) -> str:
    return f"{n / 1e6:.2f} M" if n >= 10_000 else str(n)


def _gigabytes(n: int) -> str:
    return f"{n / 1e9:.2f} GB"
