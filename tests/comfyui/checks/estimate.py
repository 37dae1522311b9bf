"""What core takes a call of nano to need, against the tensors that it makes."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch as replace

import comfy.ldm.modules.attention as attention
import comfy.model_management as mm
import comfy.supported_models
import torch
from pgp_pack.nodes.comfy_backbone import model as loader
from pgp_pack.pgp_core.unet.known import SDXL_SHAPE
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import scene

SIZE = 64


class Live(TorchDispatchMode):
    """Bytes of the tensors made inside that are there at once, at most; the same on every device."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(t)._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = call(*args, **(kwargs or {}))
        for made in (_storage(t) for t in tree_leaves(out) if isinstance(t, torch.Tensor)):
            key, size = made._cdata, made.nbytes()
            # Views and what was changed in place are no new memory.
            if key not in given | self._known:
                self._known.add(key)
                self._now += size
                self.peak = max(self.peak, self._now)
                weakref.finalize(made, self._gone, key, size)
        return out

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def _storage(tensor: torch.Tensor) -> Any:
    return tensor.untyped_storage()


def check_estimate(_out: Path) -> Any:
    """Bytes per latent position, by the attention that is used."""
    nano, noise = scene.Nano(), scene.noise(1, SIZE, SIZE)
    taken: list[int] = []

    def watched(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        with Live() as live:
            result: torch.Tensor = apply(args["input"], args["timestep"], **args["c"])
        taken.append(live.peak)
        return result

    model = nano.guided(scene.pictures(2, 1, SIZE, SIZE))
    model.set_model_unet_function_wrapper(watched)
    results: dict[str, Any] = {}
    for name, flash, function in (
        ("flash", True, attention.attention_pytorch),
        ("in pieces", False, attention.attention_sub_quad),
    ):
        with (
            replace.object(attention, "optimized_attention", function),
            replace.object(mm, "pytorch_attention_flash_attention", lambda flash=flash: flash),
        ):
            nano.sample(model, noise, steps=1, cfg=1.0)
            estimate = nano.model.model.memory_required(list(noise.shape))
        results[name] = {"live": max(taken) / SIZE**2, "estimated": estimate / SIZE**2}
        taken.clear()
    full = loader._SDXLShaped(SimpleNamespace(shape=SDXL_SHAPE, zero_snr=False))  # type: ignore[arg-type]
    results["full size"] = [full.memory_usage_factor, comfy.supported_models.SDXL.memory_usage_factor]
    return results
