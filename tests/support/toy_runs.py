"""Runs so small that a step takes a millisecond."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pgp_core.errors import TrainingError
from pgp_core.training.config import RunConfig, read_config
from pgp_core.training.processes import make_accelerator
from pgp_core.training.runner import Runner
from pgp_core.training.subject import Batch


def small_model(seed: int = 0) -> torch.nn.Sequential:
    """Twelve numbers in and out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.Tanh(), torch.nn.Linear(8, 12))


def batch_of(number: int, size: int = 3) -> Batch:
    """Micro-batch ``number``: 2 x 2 pixels."""
    g = torch.Generator().manual_seed(number)
    lq = torch.randn(size, 3, 2, 2, generator=g)
    return Batch(lq, lq.flip(1), ("",) * size, torch.ones(size, 2), torch.zeros(size, 2))


def batches(numbers: range) -> Iterator[Batch]:
    """Micro-batches by number."""
    return (batch_of(n) for n in numbers)


def noisy(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
    """Noisy regression: all randomness from the generator."""
    x, y = batch.lq.flatten(1), batch.hq.flatten(1)
    return (model(x + 0.1 * torch.randn(x.shape, generator=generator)) - y).square().mean()


def toy_config(folder: Path, **changes: Any) -> RunConfig:
    """``run_steps=9`` stands for ``run.steps``."""
    tables: dict[str, dict[str, Any]] = {
        "run": {"folder": str(folder), "steps": 6, "save_every": 3, "log_every": 2, "precision": "float32"},
        "model": {"kind": "nano", "guidance": "base"},
        "data": {"kind": "synthetic", "patch": 16},
        "optimizer": {"lr": 1e-2, "warmup": 2},
        "ema": {"decay": 0.9},
    }
    for key, value in changes.items():
        section, _, name = key.partition("_")
        tables.setdefault(section, {})[name] = value
    return read_config(tables)


def toy_runner(
    folder: Path, loss: Any = noisy, seed: int = 0, model: Any = None, signature: Any = None, **changes: Any
) -> Runner:
    """A runner of :func:`small_model` on the CPU."""
    config = toy_config(folder, **changes)
    return Runner(model or small_model(seed), loss, config, make_accelerator("cpu"), signature or {})


def state_of(runner: Runner) -> dict[str, torch.Tensor]:
    """Everything that training changes."""
    moments = {f"optimizer.{i}.{k}": v for i, s in runner.optimizer.state_dict()["state"].items() for k, v in s.items()}
    assert runner.ema is not None
    return dict(runner.subject.state_dict()) | {f"ema.{k}": v for k, v in runner.ema.shadow.items()} | moments


def killed_after(steps: int) -> Any:
    """Batches whose source breaks, as a killed process does."""

    def source(numbers: range) -> Iterator[Batch]:
        for n in numbers:
            if n >= steps:
                raise KeyboardInterrupt
            yield batch_of(n)

    return source


def broken_off(folder: Path, steps: int, **changes: Any) -> Runner:
    """A run that was killed after so many micro-batches."""
    run = toy_runner(folder, **changes)
    with pytest.raises(KeyboardInterrupt):
        run.run(killed_after(steps), progress=False)
    return run


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The log."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


#: Processes that begin with everything imported, and nothing run.
FORKS = multiprocessing.get_context("forkserver")
# torch._dynamo: every optimiser imports it, at a price of seconds.
FORKS.set_forkserver_preload(["pgp_core.training.runner", "accelerate", "torch._dynamo"])


def run_as(rank: int, processes: int, port: int, folder: Path, said: Any = None) -> None:
    """One of several processes of a run, as torchrun or accelerate start them; what it fails with is sent."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    run = toy_runner(folder)
    assert run.accelerator.num_processes == processes
    try:
        run.run(batches, progress=False)
    except TrainingError as e:
        if said is None:
            raise
        said.send(str(e))
    run.accelerator.end_training()


def run_slowly(folder: Path, started: Any, changes: dict[str, Any], most: int) -> None:
    """A run to be killed: it resumes, tells its step at the beginning and in each micro-batch, takes two milliseconds
    for that, and waits after ``most`` steps."""
    torch.set_num_threads(1)

    def slow(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        started.send(run.step)
        time.sleep(0.002 if run.step < first + most else 60)
        return noisy(model, batch, generator)

    run = toy_runner(folder, slow, seed=os.getpid(), **changes)
    if not (folder / "state.pt").exists():
        # Only a resumed run may differ in what it started from.
        run = toy_runner(folder, slow, **changes)
    run.resume()
    first = run.step
    started.send(first)
    run.run(batches, progress=False)
