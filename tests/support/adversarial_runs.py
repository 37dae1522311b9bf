"""Runs against discriminators so small that a step takes some hundredths of a second."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from toy_runs import state_of

from pgp_core.conditioning.conditioning import Conditioning
from pgp_core.training.adversarial.adversary import Adversary
from pgp_core.training.config import RunConfig, read_config
from pgp_core.training.distillation import loss_config
from pgp_core.training.one_step_loss import make_s1_loss
from pgp_core.training.processes import make_accelerator
from pgp_core.training.runner import Runner
from pgp_core.training.subject import Batch, Subject


class Small(Subject):
    """Latents are pixels; the "UNet" is two convolutions."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, last = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 3, 3, padding=1)
        self.unet = torch.nn.Sequential(first, torch.nn.Tanh(), last)
        self.guidance, self.prediction, self.negatives, self.s1_timestep = None, "epsilon", True, 7

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return 2 * pictures.detach() - 1

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return (z + 1) / 2

    def denoised(self, z_lq: torch.Tensor, z_hq: torch.Tensor) -> torch.Tensor:
        return z_hq

    def conditioning(self, batch: Batch, positive: torch.Tensor) -> Conditioning:
        return Conditioning(torch.zeros(len(batch), 1, 1), torch.zeros(len(batch), 1), torch.zeros(len(batch), 6))

    def forward(self, x: torch.Tensor, *_: Any) -> torch.Tensor:
        return self.unet(x)


def batches(numbers: range) -> Iterator[Batch]:
    """Micro-batches by number, 32 x 32 pixels."""
    for n in numbers:
        g = torch.Generator().manual_seed(n)
        hq = torch.rand(1, 3, 32, 32, generator=g)
        lq = torch.nn.functional.avg_pool2d(hq, 3, 1, 1)
        yield Batch(lq, hq, ("",), torch.full((1, 2), 32), torch.zeros(1, 2, dtype=torch.long))


def killed_after(steps: int) -> Any:
    """Batches whose source breaks, as a killed process does."""

    def source(numbers: range) -> Iterator[Batch]:
        for n in numbers:
            if n >= steps:
                raise KeyboardInterrupt
            yield from batches(range(n, n + 1))

    return source


def configured(folder: Path, **changes: Any) -> RunConfig:
    """``adversarial_width=9`` stands for ``adversarial.width``."""
    tables: dict[str, dict[str, Any]] = {
        "run": {"folder": str(folder), "steps": 6, "save_every": 3, "log_every": 2, "precision": "float32"},
        "model": {"kind": "nano", "guidance": "base", "train": ["lora"]},
        "data": {"kind": "synthetic", "patch": 32},
        "optimizer": {"lr": 1e-2, "warmup": 1},
        "ema": {"decay": 0.9},
        "s1": {"preset": "nano", "l1": 1.0, "edges": 0.0, "perceptual": 0.1, "shifted": 1.0}
        | {"measure": "efficientnet-lite0"},
        "adversarial": {"width": 4, "alone": 1, "ramp": 2, "lr": 1e-2},
    }
    for key, value in changes.items():
        section, _, name = key.partition("_")
        tables[section][name] = value
    return read_config(tables)


def runner(folder: Path, seed: int = 0, **changes: Any) -> Runner:
    """A runner of :class:`Small` on the CPU; another seed is another beginning of model and discriminators."""
    config, subject = configured(folder, **changes), Small(seed)
    assert config.adversarial is not None
    loss = make_s1_loss(loss_config(config), subject, None, Adversary(config.adversarial, "cpu", seed), 8)
    return Runner(subject, loss, config, make_accelerator("cpu"), {})


def whole_state(run: Runner) -> dict[str, torch.Tensor]:
    """Everything that training changes."""
    assert run.adversary is not None
    own = run.adversary.state_dict()
    moments = {f"judges.{i}.{k}": v for i, s in own["optimizer"]["state"].items() for k, v in s.items()}
    pulls = {f"pull.{k}": torch.tensor(v, dtype=torch.float64) for k, v in own["pulls"].items()}
    return state_of(run) | {f"judges.{k}": v for k, v in own["judges"].items()} | moments | pulls


def run_as(rank: int, processes: int, port: int, folder: Path) -> None:
    """One of several processes of a run."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    run = runner(folder)
    assert run.accelerator.num_processes == processes
    run.run(batches, progress=False)
    run.accelerator.end_training()
