"""What an entry of CONDITIONING must be so that a file can keep it; the same before saving and after loading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import ConditioningError
from ..files.safetensors_stream import storable

#: Options that point at other models, or at places in one picture: they mean nothing in another graph.
# fmt: off
REFUSED = frozenset({
    "hooks", "default", "control", "control_apply_to_uncond", "gligen", "reference_latents", "model_conds", "uuid",
    "mask", "mask_strength", "set_area_to_bounds", "area",
})
# fmt: on

#: Pixels, and the order in which SDXL takes them.
SIZES = ("height", "width", "crop_h", "crop_w", "target_height", "target_width")

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DTYPES = (*_FLOATS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

#: Far beyond any picture; an int that is no size does not get here.
_LARGEST_SIZE = 1_000_000

#: Lists in lists; JSON itself could go on until Python's stack ends.
_DEEPEST = 8


def check_entry(context: Any, options: Mapping[str, Any], where: str) -> None:
    """Whether a file can keep an entry ``[context, options]``.

    Args:
        where: what to call the entry in errors.

    Raises:
        ConditioningError: naming the option that no file can keep, or what is of another shape or not finite.
    """
    for name in options:
        if not isinstance(name, str) or not name or not storable(name):
            raise ConditioningError(f"{where} has an option named {name!r}: a name must be text")
    if refused := REFUSED & options.keys():
        raise ConditioningError(
            f"{where} has {', '.join(sorted(refused))}, which no file can keep: save it before the node that adds it"
        )
    if not isinstance(context, torch.Tensor) or context.dtype not in _FLOATS or context.dim() != 3:
        raise ConditioningError(f"{where} needs a context of (batch, tokens, dim) floats, not {describe(context)}")
    _check_tensor(context, f"the context of {where}")
    for name, value in options.items():
        what = f"{name!r} of {where}"
        if isinstance(value, torch.Tensor):
            _check_tensor(value, what)
        elif not _is_json(value):
            raise ConditioningError(
                f"{what} is {describe(value)}, neither a tensor nor a plain finite value: "
                f"save the conditioning before the node that adds it"
            )
    _check_pooled(options.get("pooled_output"), len(context), where)
    for name in SIZES:
        if name in options and not _is_number(options[name], 0, _LARGEST_SIZE):
            raise ConditioningError(
                f"{name!r} of {where} must be 0 to {_LARGEST_SIZE} pixels, not {describe(options[name])}"
            )
    for name in ("start_percent", "end_percent", "strength"):
        if name in options and not _is_number(options[name], -_LARGEST_SIZE, _LARGEST_SIZE):
            raise ConditioningError(f"{name!r} of {where} must be a number, not {describe(options[name])}")


def _check_tensor(tensor: torch.Tensor, what: str) -> None:
    # Subclasses hold quantized weights, which are more than their numbers.
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout != torch.strided or tensor.is_meta:
        raise ConditioningError(f"{what} is no plain tensor, but {type(tensor).__name__}: a file cannot keep it")
    if tensor.dtype not in _DTYPES:
        raise ConditioningError(f"{what} is {describe(tensor)}: a file keeps floats of 16 to 64 bits, ints and bools")
    if tensor.numel() == 0:
        raise ConditioningError(f"{what} is empty: it is {describe(tensor)}")
    if tensor.dtype in _FLOATS and not bool(torch.isfinite(tensor).all()):
        raise ConditioningError(f"{what} is not finite: encode the prompt again, in float32 if it was in float16")


def _check_pooled(pooled: Any, batch: int, where: str) -> None:
    if pooled is None:
        return
    fits = isinstance(pooled, torch.Tensor) and pooled.dtype in _FLOATS and pooled.dim() == 2
    if not fits or len(pooled) not in (1, batch):
        raise ConditioningError(
            f"'pooled_output' of {where} must be (1, dim) or ({batch}, dim) floats, not {describe(pooled)}"
        )


def _is_json(value: Any, depth: int = 0) -> bool:
    """Whether JSON gives an equal value back, finite and not nested too deep."""
    if isinstance(value, (list, dict)):
        if depth == _DEEPEST:
            return False
        if isinstance(value, dict):
            return all(isinstance(k, str) for k in value) and all(_is_json(v, depth + 1) for v in value.values())
        return all(_is_json(v, depth + 1) for v in value)
    if isinstance(value, int):
        return abs(value) < 2**63
    return value is None or isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def describe(value: Any) -> str:
    """A value in a few words of one line."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    # Python refuses to print ints of more than 4300 digits.
    if isinstance(value, int) and abs(value) >= 2**63:
        return f"an int of {value.bit_length()} bits"
    if value is None or isinstance(value, (int, float, str)):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:40]}..."
    return f"a {type(value).__name__}"
