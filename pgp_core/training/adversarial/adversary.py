"""The discriminators of a run: what they make of a batch, how they learn from it, and their part of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..optimizer import take_up
from ..perceptual.efficientnet_lite0 import Features, double, moved, read_weights
from ..subject import Batch
from . import hinge
from .config import Adversarial
from .heads import Heads
from .pull import OTHERS, Pulls, ramp, with_gradient
from .unet_discriminator import UNetDiscriminator


class Adversary:
    """Discriminators beside a model. No module, so that what wraps the model for several devices leaves it alone.

    A call looks at a micro-batch and keeps the discriminators' gradients; :meth:`update` makes their step. Both sides
    learn from the same pass, each against the other as it was before the step.

    Args:
        config: its weights, ``heads`` and ``pixels``, say which discriminators there are.
        device: where they live.
        seed: of their first weights, which so are the same in all processes.

    Raises:
        PGPError: if there are to be heads and the package with the features is not installed.

    Attributes:
        terms: of the last call, for the log: the model's adversarial losses ``adversarial_heads`` and
            ``adversarial_pixels``, the discriminators' own ``discriminator_...``, weights and smoothed pulls.
    """

    def __init__(self, config: Adversarial, device: torch.device | str = "cpu", seed: int = 0):
        self.config = config
        self.features = Features(read_weights()).to(device) if config.heads else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.judges = make_judges(config).to(device)
        self.parameters = list(self.judges.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.lr, betas=config.betas, weight_decay=0.0, fused=True
        )
        self.pulls = Pulls()
        self.terms: dict[str, torch.Tensor] = {}
        self._forget()

    def alone(self, step: int) -> bool:
        """Whether in this step, counted from 0, the discriminators learn and the model does not."""
        return step < self.config.alone

    # -- a micro-batch -------------------------------------------------------------------------------------------

    def __call__(
        self, picture: torch.Tensor, others: torch.Tensor, batch: Batch, generator: torch.Generator, step: int
    ) -> torch.Tensor:
        """The sum of the picture's other terms and the adversarial ones, weighed; a float32 scalar.

        Args:
            picture: ``(B, 3, H, W)`` float32, the model's result in [0, 1], not clamped. Without a gradient only the
                discriminators learn.
            others: the sum of the terms that were made of it, a scalar.
            generator: on the CPU; moves the crop.
            step: counted from 0.
        """
        found = self._look(picture, batch, generator)
        self._count += 1
        if not picture.requires_grad:
            return others
        value = others.detach()
        if others.requires_grad:
            (total,) = torch.autograd.grad(others, picture)
        else:
            total = torch.zeros_like(picture)
        pulls = {OTHERS: total.norm()}
        for name, term in found.items():
            (gradient,) = torch.autograd.grad(term, picture)
            pulls[name] = gradient.norm()
            weight = self._weight(name, step)
            value, total = value + weight * term.detach(), total + weight * gradient
            self.terms[f"weight_{name}"] = torch.tensor(weight)
        for name, pull in pulls.items():
            self._pulls[name] = self._pulls.get(name, 0) + pull.detach()
        self.terms |= {f"pull_{k}": torch.tensor(v) for k, v in self.pulls.smoothed.items()}
        return with_gradient(picture, value, total)

    def _look(self, picture: torch.Tensor, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """The model's adversarial terms; the discriminators' gradients are kept."""
        self.terms = {}
        fake, real, canvas = moved((picture, batch.hq, batch.lq), generator)
        found = {}
        judges: dict[str, Any] = dict(self.judges.items())
        for name, judge in judges.items():
            # The discriminators learn also where the model does not.
            with torch.enable_grad(), judge.weights():
                logits = self._heads(judge, fake, real) if name == "heads" else [judge(p, canvas) for p in (fake, real)]
                own, found[name] = hinge.of_discriminator(logits[1], logits[0]), hinge.of_model(logits[0])
            parameters = list(judge.parameters())
            for p, g in zip(parameters, torch.autograd.grad(own, parameters, retain_graph=True), strict=True):
                p.grad = g if p.grad is None else p.grad + g
            self.terms[f"adversarial_{name}"], self.terms[f"discriminator_{name}"] = found[name].detach(), own.detach()
        return found

    def _heads(self, judge: Heads, fake: torch.Tensor, real: torch.Tensor) -> list[list[torch.Tensor]]:
        assert self.features is not None
        with torch.no_grad():
            there = self.features(double(real))[1:]
            self._measured.append(judge.measured([f.float() for f in there]))
        with torch.set_grad_enabled(fake.requires_grad):
            here = self.features(double(fake))[1:]
        return [judge(here), judge(there)]

    def _weight(self, name: str, step: int) -> float:
        c = self.config
        own = getattr(c, name)
        return ramp(step, c.alone, c.ramp) * (self.pulls.weight(name, own) if c.weights == "pull" else own)

    # -- a step --------------------------------------------------------------------------------------------------

    def update(self, accelerator: Any) -> None:
        """The discriminators' step, with the mean gradient of all calls since the last one, and of all processes. A
        gradient that is not finite is passed over."""
        names = sorted(self._pulls)
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        parts += [torch.as_tensor(self._pulls[name]) for name in names]
        if self._measured:
            parts.append(torch.stack(self._measured).sum(0))
        flat = torch.cat([p.flatten() for p in parts]) / self._count
        if accelerator.num_processes > 1:
            flat = accelerator.reduce(flat, "mean")
        mean = [m.view(p.shape) for m, p in zip(flat.split([p.numel() for p in parts]), parts, strict=True)]
        gradients, rest = mean[: len(self.parameters)], mean[len(self.parameters) :]
        if bool(torch.isfinite(flat).all()):
            for p, g in zip(self.parameters, gradients, strict=True):
                p.grad = g
            self.optimizer.step()
            for judge in self.judges.values():
                judge.refresh()  # type: ignore[operator]
            self.pulls.take({name: float(v) for name, v in zip(names, rest, strict=False)})
            if self._measured:
                self.judges["heads"].take(rest[-1])  # type: ignore[operator]
        self._forget()

    def _forget(self) -> None:
        self._count = 0
        self._pulls: dict[str, Any] = {}
        self._measured: list[torch.Tensor] = []
        self.optimizer.zero_grad(set_to_none=True)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Weights with singular vectors and statistics, optimiser, pulls: tensors and plain data."""
        return {
            "judges": dict(self.judges.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "pulls": dict(self.pulls.smoothed),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: if it is of other discriminators. A damaged one may raise
                anything.
        """
        pulls = {str(k): float(v) for k, v in state["pulls"].items()}
        if not set(pulls) <= {OTHERS, *self.judges}:
            raise ValueError("it has pulls of other terms")
        self.judges.load_state_dict(state["judges"])
        take_up(self.optimizer, state["optimizer"])
        self.pulls.smoothed = pulls


def make_judges(config: Adversarial) -> torch.nn.ModuleDict:
    """The discriminators that have a weight, ``heads`` and ``pixels``."""
    judges: dict[str, torch.nn.Module] = {}
    if config.heads:
        judges["heads"] = Heads()
    if config.pixels:
        judges["pixels"] = UNetDiscriminator(config.width, config.unshuffle)
    return torch.nn.ModuleDict(judges)
