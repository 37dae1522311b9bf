"""One training loop: resumable, atomic checkpoints, a JSON-lines log."""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..atomic import replacing
from ..errors import CheckpointError
from .model import EMA
from .precision import autocast

Batch = tuple[torch.Tensor, torch.Tensor]
Loss = Callable[[torch.nn.Module, Batch, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class LoopConfig:
    """How to train.

    Attributes:
        steps: optimiser steps in all; fewer are made when ``minutes`` run out first.
        minutes: wall-clock budget of this call, or None. The learning rate then follows the larger of the
            two shares (steps done, time used), so the cosine always ends at zero.
        lr: peak learning rate, after ``warmup`` steps, then cosine to zero.
        lr_factors: prefix of parameter names to a factor on ``lr`` for them.
        decay: of the weights' moving average.
        clip: norm that gradients are clipped to.
        precision: ``float32`` or ``bf16`` (see :mod:`.precision`).
        save_every: steps between checkpoints.
    """

    steps: int
    minutes: float | None = None
    lr: float = 4e-4
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    warmup: int = 100
    weight_decay: float = 1e-2
    decay: float = 0.999
    clip: float = 1.0
    precision: str = "float32"
    seed: int = 0
    save_every: int = 500
    log_every: int = 20


class Trainer:
    """State of one run: model, optimiser, average, step. ``run`` trains, ``resume`` continues.

    Args:
        model: its parameters with ``requires_grad`` are trained.
        loss: ``loss(model, batch, generator)``; all randomness comes from the generator, which is seeded
            from the step, so a resumed run repeats an uninterrupted one.
        folder: for ``state.pt`` and ``log.jsonl``.
    """

    def __init__(self, model: torch.nn.Module, loss: Loss, config: LoopConfig, folder: Path):
        self.model, self.loss, self.config, self.folder = model, loss, config, folder
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self._groups(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.999), fused=True
        )
        self.ema = EMA(model, config.decay)
        self.step = 0
        self.seconds = 0.0
        #: Steps without an update, because a gradient was not finite.
        self.skipped = 0
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, batches: Callable[[int, int], Iterable[Batch]], progress: bool = True) -> dict[str, Any]:
        """Train to the end of the budget.

        Args:
            batches: ``batches(start, stop)`` yields the batches of these steps.

        Returns:
            steps, seconds and the mean loss of the last tenth.

        Raises:
            FloatingPointError: if the loss is not finite; the last checkpoint stays.
        """
        device = self.parameters[0].device
        recent: list[float] = []
        started = time.monotonic() - self.seconds
        self.model.train()
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as log:
            for batch in self._bar(batches(self.step, self.config.steps), progress):
                self.seconds = time.monotonic() - started
                share = self._share()
                if share >= 1:
                    break
                lr = self._lr(share)
                for group in self.optimizer.param_groups:
                    group["lr"] = lr * group["factor"]
                generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
                with autocast(device, self.config.precision):
                    loss = self.loss(self.model, batch, generator)
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss.item()} at step {self.step}; last checkpoint kept")
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
                if torch.isfinite(norm):
                    self.optimizer.step()
                    self.ema.update(self.model)
                else:
                    self.skipped += 1
                self.optimizer.zero_grad(set_to_none=True)
                self.step += 1
                recent.append(loss.item())
                if self.step % self.config.log_every == 0:
                    tail = recent[-self.config.log_every :]
                    row = {
                        "step": self.step,
                        "loss": sum(tail) / len(tail),
                        "lr": lr,
                        "grad_norm": float(norm),
                        "skipped": self.skipped,
                        "seconds": round(self.seconds, 1),
                    }
                    log.write(json.dumps(row) + "\n")
                    log.flush()
                if self.step % self.config.save_every == 0:
                    self.save()
        self.save()
        tail = recent[-max(1, len(recent) // 10) :]
        return {
            "steps": self.step,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 1),
            "loss": sum(tail) / len(tail) if tail else None,
            "config": asdict(self.config),
        }

    def save(self) -> None:
        """Write the whole state to a temporary name, then rename."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.shadow,
            "ema_updates": self.ema.updates,
            "skipped": self.skipped,
        }
        with replacing(self.folder / "state.pt") as temporary:
            torch.save(state, temporary)

    def resume(self) -> bool:
        """Continue from ``state.pt`` if there is one.

        Raises:
            CheckpointError: if it belongs to another model.
        """
        path = self.folder / "state.pt"
        if not path.exists():
            return False
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as e:
            raise CheckpointError(f"{path} is damaged ({_first_line(e)}): delete it to start this run again") from None
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as e:
            raise CheckpointError(
                f"{path} is not from this run ({_first_line(e)}): choose another folder or delete it"
            ) from None
        for name, value in self.ema.shadow.items():
            value.copy_(state["ema"][name])
        self.ema.updates, self.step, self.seconds = state["ema_updates"], state["step"], state["seconds"]
        self.skipped = state["skipped"]
        return True

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters by their learning rate's factor; where several prefixes match, the first counts."""
        groups: dict[float, list[torch.nn.Parameter]] = {}
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                factor = next((f for prefix, f in self.config.lr_factors.items() if name.startswith(prefix)), 1.0)
                groups.setdefault(factor, []).append(p)
        return [{"params": params, "factor": factor} for factor, params in groups.items()]

    def _share(self) -> float:
        by_steps = self.step / self.config.steps
        by_time = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return max(by_steps, by_time)

    def _lr(self, share: float) -> float:
        warm = min(1.0, (self.step + 1) / self.config.warmup)
        return self.config.lr * warm * 0.5 * (1 + math.cos(math.pi * share))

    def _bar(self, batches: Iterable[Batch], progress: bool) -> Iterator[Batch]:
        from tqdm import tqdm

        yield from tqdm(
            batches,
            desc=self.folder.name,
            initial=self.step,
            total=self.config.steps,
            unit="step",
            disable=not progress,
        )


def _first_line(e: BaseException) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0]
