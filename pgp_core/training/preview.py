"""``--dry-run``: what a run would train, on what, in how much memory. No weight is read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import PGPError
from ..guidance.fresh import fresh_spec
from ..guidance.module import Site
from ..progress import Say
from ..unet.known import SDXL_SHAPE
from ..unet.plan import PrunePlan
from .building import OWN_GUIDANCE, WEIGHTS, Parts, beside, empty, inspect, read_plan, resolve
from .config import RunConfig
from .distillation import loss_config, score_file, uses_lite0
from .memory import discriminator_params, memory
from .perceptual.efficientnet_lite0 import read_weights
from .perceptual.lpips_vgg import default_vgg
from .precision import fastest
from .results import LORA
from .sources import make_degradation, make_source, painted_path, taught_path
from .state import read_step
from .subject import Subject


def preview(config: RunConfig, say: Say) -> dict[str, Any]:
    """Plain numbers: parameters, bytes, steps, crops.

    What a full-size run starts from need not be there yet: then SDXL's own shape is counted.

    Raises:
        PGPError: as the run itself would for files that do not fit.
    """
    missing = _missing(config)
    for path in (*missing, *_missing_for_s1(config), *_missing_crops(config)):
        say(f"{path} is not there yet")
    if config.s1 is not None:
        _say_what_lite0_lacks(config, say)
    parts = _assumed(config, say) if missing else inspect(config, say)
    on_gpu = config.run.device == "auto" and torch.cuda.is_available()
    full = config.model.of.full_size
    # A full-size run is meant for a card, wherever it is looked at.
    device = torch.device("cuda" if on_gpu else "cpu")
    precision = fastest(device) if config.run.precision == "auto" else config.run.precision
    subject = empty(parts, config)
    groups: dict[str, int] = {}
    for name, p in subject.named_parameters():
        if p.requires_grad:
            part = "lora" if ".lora_" in name else ".".join(name.split(".")[: 2 if name.startswith("guidance.") else 1])
            groups[part] = groups.get(part, 0) + p.numel()
    if config.s1 is not None and full:
        say("what the VAE's decoder and the perceptual measure keep is not counted")
    params = sum(p.numel() for p in subject.parameters())
    terms = memory(config, parts, subject, precision, on_gpu or full)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    micro = config.data.batch * config.data.accumulation * processes
    return {
        "folder": str(config.run.folder),
        "plan": parts.plan.name,
        "params": params,
        "trained": sum(groups.values()),
        "trained_parts": groups,
        "discriminator_params": discriminator_params(config),
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
        "missing": [str(p) for p in (*missing, *_missing_for_s1(config), *_missing_crops(config))],
    }


def _missing(config: RunConfig) -> list[Path]:
    """Files of a full-size model that are not there."""
    model = config.model
    if not model.of.full_size:
        return []
    base = resolve(config, model.base) if model.base else None
    guidance = None if model.guidance in OWN_GUIDANCE else resolve(config, model.guidance)
    wanted = (base, guidance, model.sdxl, model.vae, *model.loras, model.conditioning, model.negative_conditioning)
    return [p for p in wanted if p is not None and not p.exists()]


def _missing_crops(config: RunConfig) -> list[Path]:
    """A teacher's crops, where they are not made yet."""
    if config.teacher is None or taught_path(config).exists():
        return []
    return [taught_path(config)]


def _missing_for_s1(config: RunConfig) -> list[Path]:
    """Files beside the model that a distillation needs and that are not there."""
    if config.s1 is None:
        return []
    full, s1, settings = config.model.of.full_size, config.s1, loss_config(config).resolved()
    wanted: list[Path | None] = []
    if s1.first_lora:
        wanted.append(beside(config, s1.first_lora, LORA if full else WEIGHTS))
    if settings.csd:
        wanted.append(score_file(config) if full else beside(config, s1.score_model or "full", WEIGHTS))
    if settings.perceptual and "lpips" in (settings.measure or ""):
        wanted.append(Path(os.path.expanduser(settings.vgg)) if settings.vgg else default_vgg())
    known = _missing(config)
    return [p for p in wanted if p is not None and not p.exists() and p not in known]


def _say_what_lite0_lacks(config: RunConfig, say: Say) -> None:
    if uses_lite0(config):
        try:
            read_weights()
        except PGPError as e:
            say(str(e))


def _assumed(config: RunConfig, say: Say) -> Parts:
    """SDXL's own shape, less the plan's blocks; fresh guidance where there is to be any."""

    def load(device: torch.device) -> Subject:
        raise NotImplementedError

    say("counted as SDXL, whose shape it is taken to have")
    plan = read_plan(config) or PrunePlan.full(SDXL_SHAPE.topology)
    plan.check(SDXL_SHAPE.topology)
    spec = None if config.model.guidance == "none" else fresh_spec(SDXL_SHAPE.channels[0], plan)
    if spec is not None and config.model.guidance in ("own", "faithdiff+fresh"):
        alignment = Site("conv_in", SDXL_SHAPE.channels[0], 0, 8, "alignment")
        spec = replace(spec, sites=(alignment, *(spec.sites if "+" in config.model.guidance else ())))
    return Parts(SDXL_SHAPE, plan, spec, "epsilon", None, load)


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
        *([("discriminators", _millions(found["discriminator_params"]))] if found["discriminator_params"] else []),
        ("memory", f"{_gigabytes(found['memory_bytes'])} on each device, {found['precision']}"),
        *(("", t) for t in told),
        (
            "steps",
            f"{found['steps']} of {found['crops_a_step']} crops: {batch['micro']} x {batch['accumulation']} "
            f"accumulated x {batch['processes']} process{'es' if batch['processes'] > 1 else ''}",
        ),
        ("data", ", ".join(_told(k, v) for k, v in data.items() if v or k == "pictures")),
    ]


def _told(name: str, value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} {name} skipped"
    return f"{name.replace('_', ' ')} {value}"


def _done(config: RunConfig) -> int:
    """Steps in the last checkpoint; whether it is this run's is seen when the run begins."""
    return read_step(config.run.folder / "state.pt")


def _data(config: RunConfig) -> dict[str, Any]:
    """What there is to train on; of pictures only headers and captions are read."""
    data = config.data
    if config.teacher is not None:
        if not taught_path(config).exists():
            return {"pictures": config.teacher.crops, "teacher": config.teacher.model, "file": str(taught_path(config))}
        return make_source(config).samples.summary().to_json()
    if data.kind == "synthetic":
        make_degradation(config)
        path = painted_path(config)
        return {"pictures": data.pictures, "painted_already": path.exists(), "file": str(path)}
    assert data.folder is not None
    if not data.folder.exists():
        return {"pictures": 0, "folder": str(data.folder)}
    return make_source(config).samples.summary().to_json()


def _millions(n: int) -> str:
    return f"{n / 1e6:.2f} M" if n >= 10_000 else str(n)


def _gigabytes(n: int) -> str:
    return f"{n / 1e9:.2f} GB"
