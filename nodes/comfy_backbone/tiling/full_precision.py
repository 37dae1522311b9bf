"""A MODEL that computes in float32 for a while, whatever its weights are kept in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import comfy.ops
import torch
from comfy.model_base import BaseModel

#: Switches of ``comfy.ops`` that make a layer cast its weights to its input's dtype, and keep it off 8-bit products.
_SWITCHES = ("comfy_cast_weights", "comfy_force_cast_weights")


@contextlib.contextmanager
def in_float32(base: BaseModel) -> Iterator[None]:
    """While it lasts, a ``BaseModel`` and its layers compute in float32; the weights stay as they are."""
    before = base.manual_cast_dtype
    changed: list[tuple[dict[str, Any], str, Any]] = []

    def switch(layer: Any, name: str, value: Any) -> None:
        # In the layer itself, past torch: what a layer has of its own there comes back, or goes.
        changed.append((vars(layer), name, vars(layer).get(name, changed)))
        vars(layer)[name] = value

    try:
        base.manual_cast_dtype = torch.float32
        for layer in base.diffusion_model.modules():
            if isinstance(layer, comfy.ops.CastWeightBiasOp):
                for name in _SWITCHES:
                    switch(layer, name, True)
            if isinstance(layer, comfy.ops.fp8_ops.Linear):
                plain = comfy.ops.manual_cast.Linear.forward_comfy_cast_weights
                switch(layer, "forward_comfy_cast_weights", plain.__get__(layer))
        yield
    finally:
        base.manual_cast_dtype = before
        for own, name, value in reversed(changed):
            if value is changed:
                del own[name]
            else:
                own[name] = value
