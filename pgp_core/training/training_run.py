"""A run from its configuration to its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingError
from ..files.atomic import replacing
from ..files.locks import locked
from ..progress import Say
from .building import Parts, inspect, select
from .config import RunConfig, named_paths
from .diffusion_loss import DiffusionLoss
from .distillation import check_files, make_loss
from .precision import fastest, prepare
from .processes import as_one, make_accelerator
from .results import write_results
from .runner import FIGURES, Loss, Runner
from .sources import Source, make_source, taught_path
from .strips import sample_recipe, strip
from .subject import Subject
from .taught_file import read_taught

#: What may differ between a checkpoint and the run that takes it up: it changes no weight.
_FREE = {
    *("run.folder", "run.save_every", "run.log_every", "run.sample_every", "run.samples", "run.tensorboard"),
    *("run.result_dtype", "run.checkpointing", "run.device", "data.workers", "data.cache"),
    # Kept as what they come to.
    *(
        "run.precision",
        "data.accumulation",
        "data.folder",
        "teacher.file",
        "model.base",
        "model.plan",
        "model.sdxl",
        "ema.device",
    ),
    *("model.decoder", "model.decoder_width", "model.decoder_depth"),
}


def train(config: RunConfig, say: Say, progress: bool = True, batches: Source | None = None) -> dict[str, Any]:
    """Run, or go on with, a run. Its folder is this run's alone until it ends.

    Args:
        say: told in one line what is worth knowing and no error.
        batches: in place of the configuration's data.

    Returns:
        the figures, which stand in ``figures.json`` too; ``main`` says whether this is the process that wrote them.

    Raises:
        PGPError: if something is missing, damaged, or does not fit, or the loss is not finite.
        Cancelled: after Ctrl-C; the state is saved, and the same command goes on.
    """
    parts = inspect(config, say)
    check_files(config)
    accelerator = make_accelerator(config.run.device)
    with ExitStack() as held:
        with as_one(accelerator):
            if accelerator.is_main_process:
                advice = "wait for it, end it, or choose another run.folder"
                held.enter_context(locked(config.run.folder, advice, folder=True))
        return _train(config, say, progress, batches, parts, accelerator)


def _train(
    config: RunConfig, say: Say, progress: bool, batches: Source | None, parts: Parts, accelerator: Any
) -> dict[str, Any]:
    """:func:`train`, by the one process that holds the folder and those that help it."""
    with accelerator.main_process_first():
        source = batches or make_source(config)
    found = source.samples.summary().lines() if batches is None and accelerator.is_main_process else []
    for line in found:
        say(line)
    subject = parts.load(accelerator.device)
    select(subject, config, say=say)
    precision = set_precision(subject, config, accelerator.device)
    loss = make_training_loss(config, subject, say)
    first = source.first(min(config.run.samples, 4 * config.data.batch))
    runner = Runner(
        subject,
        loss,
        config,
        accelerator,
        signature(config, parts, precision, accelerator.num_processes),
        strip(first, sample_recipe(config), _latent_std(config)),
        precision,
    )
    if runner.resume() and accelerator.is_main_process:
        say(f"{config.run.folder} goes on from step {runner.step} of {config.run.steps}")
    figures = runner.run(source, progress)
    figures["main"] = accelerator.is_main_process
    with as_one(accelerator):
        if accelerator.is_main_process:
            figures |= runner.averaged(lambda s: _finish(s, config, parts, source))
            _write_json(config.run.folder / FIGURES, {k: v for k, v in figures.items() if k != "main"})
    if found:
        # Pictures may turn out to be broken only when they are decoded.
        for line in source.samples.summary().lines():
            if line not in found:
                say(line)
    return figures


def make_training_loss(config: RunConfig, subject: Subject, say: Say = lambda _: None) -> Loss:
    """The loss of fine-tuning, or of distillation where there is ``[s1]``."""
    if config.s1 is not None:
        return make_loss(config, subject, say)
    c = config.loss
    power = {"l1": 1, "l2": 2}[c.kind]
    return DiffusionLoss(power, c.timesteps, c.stratified, c.noise_offset, c.prompt_dropout, c.drop_base, c.latent_std)


def set_precision(subject: Subject, config: RunConfig, device: torch.device) -> str:
    """``float32`` or ``bf16``, and the subject set up for it."""
    precision = fastest(device) if config.run.precision == "auto" else config.run.precision
    if device.type == "cpu" and precision == "bf16":
        # There PyTorch's own bfloat16 attention and norms are slow; see :mod:`.precision`.
        subject.to(memory_format=torch.channels_last)
        prepare(subject.unet, precision)
    return precision


def signature(config: RunConfig, parts: Parts, precision: str, processes: int) -> dict[str, Any]:
    """What a checkpoint must share with a run to be taken up by it: flat, by the configuration's keys."""
    flat: dict[str, Any] = {}
    for section, table in config.to_json().items():
        for key, value in table.items() if isinstance(table, Mapping) else ():
            if f"{section}.{key}" not in _FREE:
                flat[f"{section}.{key}"] = value
    base = parts.base
    flat.update({"s1.vgg": None} if config.s1 is not None else {})
    if config.teacher is not None:
        # The crops, wherever their file lies, and whatever was asked for when they were made.
        flat = {k: v for k, v in flat.items() if k not in ("teacher.model", "teacher.crops", "teacher.size")}
        file = read_taught(taught_path(config))
        flat["the teacher's crops"] = [json.dumps(file.about, sort_keys=True), len(file), file.size]
    return flat | {
        "run.precision": precision,
        "model.base": None if base is None else [base.name, base.stat().st_size if base.is_file() else 0],
        "model.decoder": _decoder_of(parts),
        "model.plan": {s: list(e.keep) for s, e in parts.plan.stacks.items()},
        "the number of micro-batches a step": config.data.accumulation * processes,
    }


def _decoder_of(parts: Parts) -> list[Any] | None:
    if parts.decoder is None:
        return None
    return [parts.decoder_file and parts.decoder_file.stat().st_size, parts.decoder.width, parts.decoder.depth]


def _latent_std(config: RunConfig) -> float:
    return config.model.of.latent_std


def _finish(subject: Subject, config: RunConfig, parts: Parts, source: Source) -> dict[str, Any]:
    files = write_results(subject, config, parts)
    return {
        "files": [p.name for p in files],
        "unet_params": sum(p.numel() for n, p in subject.unet.named_parameters() if "lora_" not in n),
        "peam_std": peam_std(subject, source),
        "config": named_paths(config.to_json()),
    }


@torch.no_grad()
def peam_std(subject: Any, source: Source) -> list[float]:
    """Is PEAM alive? Standard deviation of the input of each of its convolutions, halfway through sampling.

    A stack of plain convolutions can die in training: what reaches the last one is then a constant, whatever
    the picture. Empty where there is no PEAM.
    """
    found: list[float] = []
    peams = subject.guidance.peam.values() if subject.guidance is not None else ()
    convs = [conv for peam in peams for conv in peam.convs]
    if not convs:
        return found
    handles = [
        conv.register_forward_pre_hook(lambda _m, args: found.append(round(float(args[0].float().std()), 4)))
        for conv in convs
    ]
    try:
        batch = source.first(source.batch).to(subject.device)
        loss = DiffusionLoss(timesteps=(500, 500))
        loss(subject, batch, torch.Generator().manual_seed(0))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    except OSError as e:
        raise TrainingError(f"{path} cannot be written ({e.strerror or e}): make room") from None
