"""How much memory of its device a run needs, term by term; nothing is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..conditioning.conditioning import Conditioning
from ..unet.on_diffusers import build_unet
from .adversarial.adversary import make_judges
from .building import Parts
from .config import RunConfig
from .distillation import loss_config
from .perceptual.efficientnet_lite0 import Features, double
from .precision import Float32GroupNorm, autocast
from .subject import Subject

#: Parameters of SDXL's frozen parts: VAE, and both text encoders (123,060,480 and 694,659,840).
VAE, TEXT_ENCODERS = 83_653_863, 817_720_320
#: What CUDA itself, its libraries and the gaps between tensors take; seen between 0.5 and 1 GB.
WORKSPACE = 1 << 30


def memory(config: RunConfig, parts: Parts, subject: Subject, precision: str, on_gpu: bool) -> dict[str, int]:
    """Bytes on one device, by what takes them; the subject, from :func:`.building.empty`, is used up.

    ``activations`` and ``workspace`` are estimates, the rest is counted: weights, gradients and moving average in
    float32; two states a trained parameter for the optimiser (bytes with 8-bit Adam).
    """
    everything = sum(p.numel() for p in subject.parameters())
    trained = sum(p.numel() for p in subject.parameters() if p.requires_grad)
    averaged = config.ema.enabled and (config.ema.device == "same" or not on_gpu)
    full = config.model.of.full_size
    encoders = full and config.model.conditioning is None
    terms = {
        "weights": 4 * everything,
        "gradients": 4 * trained,
        "optimizer": (2 if config.optimizer.kind == "adamw8bit" else 8) * trained,
        "average": 4 * trained if averaged else 0,
        "vae": 4 * VAE if full else 0,
        "text_encoders": (2 if on_gpu else 4) * TEXT_ENCODERS if encoders else 0,
        "discriminator": 16 * discriminator_params(config) + 4 * _frozen_features(config),
        "score_model": (2 if on_gpu else 4) * _score_params(config, parts),
        "activations": activations(config, parts, subject, precision) + judged(config, precision),
        "workspace": WORKSPACE if on_gpu else 0,
    }
    return terms


def _score_params(config: RunConfig, parts: Parts) -> int:
    """Parameters of the frozen UNet that CSD asks, which is taken to be the unpruned one."""
    if config.s1 is None or not loss_config(config).resolved().csd:
        return 0
    with torch.device("meta"):
        return sum(p.numel() for p in build_unet(parts.shape).parameters())


def discriminator_params(config: RunConfig) -> int:
    """Parameters of a run's discriminators, which learn beside the model; 0 where it has none."""
    if config.adversarial is None:
        return 0
    with FakeTensorMode():
        return sum(p.numel() for p in make_judges(config.adversarial).parameters())


def _frozen_features(config: RunConfig) -> int:
    if config.adversarial is None or not config.adversarial.heads:
        return 0
    return sum(p.numel() for p in Features().parameters())


def judged(config: RunConfig, precision: str) -> int:
    """An estimate of what discriminators keep of a micro-batch, result and HQ, for their backward pass."""
    if config.adversarial is None:
        return 0
    n, side = config.data.batch, config.data.patch
    with FakeTensorMode(allow_non_fake_inputs=True):
        judges, features = make_judges(config.adversarial), Features()
        kept = _Saved({p.untyped_storage()._cdata for m in (judges, features) for p in m.parameters()})
        fake, real = torch.empty(n, 3, side, side, requires_grad=True), torch.empty(n, 3, side, side)
        with (
            torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda x: x),
            autocast(torch.device("cpu"), precision),
        ):
            for name, judge in judges.items():
                for picture in (fake, real):
                    _ = judge(features(double(picture))[1:]) if name == "heads" else judge(picture, real)
    return kept.total


def activations(config: RunConfig, parts: Parts, subject: Any, precision: str) -> int:
    """An estimate of what a micro-batch keeps for its backward pass; the subject is used up.

    Counted on tensors without memory: what autograd saves, each storage once, parameters left out. With
    checkpointing that is the input of each checkpointed layer, and the largest of these layers computed again. The
    gradients of the activations are taken to be as large as that layer; without checkpointing, as a tenth.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        _fake(subject)
        weights = {p.untyped_storage()._cdata for p in subject.parameters()}
        outer, segments = _Saved(weights), _Saved(weights)
        largest = 0
        if config.run.checkpointing:

            def segment(function: Any, *args: Any, **kwargs: Any) -> Any:
                nonlocal largest
                inner = _Saved(weights)
                for x in _tensors(args):
                    segments.pack(x)
                with torch.autograd.graph.saved_tensors_hooks(inner.pack, lambda x: x):
                    out = function(*args, **kwargs)
                largest = max(largest, inner.total)
                return out

            subject.unet.enable_gradient_checkpointing(segment)
        with (
            torch.autograd.graph.saved_tensors_hooks(outer.pack, lambda x: x),
            autocast(torch.device("cpu"), precision),
        ):
            _call(subject, config, parts)
        kept = outer.total + sum(n for k, n in segments.seen.items() if k not in outer.seen)
    if config.s1 is not None and loss_config(config).resolved().shifted:
        # A second pass, whose crop is hardly smaller.
        kept *= 2
    return kept + (2 * largest if config.run.checkpointing else kept // 10)


@dataclass
class _Saved:
    """Storages that autograd keeps, each once."""

    weights: set[int]
    seen: dict[int, int] = field(default_factory=dict)
    #: Held, so that no later storage has an earlier one's address.
    alive: list[Any] = field(default_factory=list)

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in self.weights and storage._cdata not in self.seen:
            self.seen[storage._cdata] = storage.nbytes()
            self.alive.append(storage)
        return x

    @property
    def total(self) -> int:
        return sum(self.seen.values())


class _Float32LayerNorm(torch.nn.LayerNorm):
    """Computes, and keeps for the backward pass, what CUDA's autocast does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float())


def _fake(subject: torch.nn.Module) -> None:
    """Let a subject be counted: its tensors become ones without memory that claim to be on the CPU, and its norms
    compute in float32."""
    for module in subject.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = torch.nn.Parameter(torch.empty(p.shape, dtype=p.dtype), p.requires_grad)
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = torch.empty(b.shape, dtype=b.dtype)
        if type(module) is torch.nn.GroupNorm:
            module.__class__ = Float32GroupNorm
        elif type(module) is torch.nn.LayerNorm:
            module.__class__ = _Float32LayerNorm
    subject.train()


def _call(subject: Any, config: RunConfig, parts: Parts) -> None:
    """One forward pass of a micro-batch."""
    n, side, shape = config.data.batch, config.data.patch, parts.shape
    factor, tokens = config.model.of.factor, config.model.of.tokens
    x = torch.empty(n, shape.latent_channels, side // factor, side // factor)
    conditioning = Conditioning(
        torch.empty(n, tokens, shape.context_dim), torch.empty(n, shape.pooled_dim), torch.empty(n, 6)
    )
    subject(x, torch.empty(n), torch.empty(n, 3, side, side), conditioning)
    if "decoder" in config.model.train:
        # Its layers have the picture's full resolution.
        subject.decode(x)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)
