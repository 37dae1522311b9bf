"""Which model a report was measured on: a few of its weights' values, compared with those of another model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import ReportError
from ..files.weights import WeightsFile
from ..unet.inspect import inspect_unet
from .report import Report

#: Values kept of each tensor.
VALUES = 4
#: Share of equal values from which on two models are one: the same file rounded twice may differ in a few.
_SAME = 0.95
#: Types of weights, the coarsest first. Which of two is coarser decides how both are rounded.
_DTYPES = {
    str(t).removeprefix("torch."): t
    for t in (
        torch.float8_e5m2,
        torch.float8_e4m3fn,
        torch.bfloat16,
        torch.float16,
        torch.float32,
        torch.float64,
    )
}


def fingerprint(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The first :data:`VALUES` values of each vector outside the transformer blocks, with its type.

    Those a plan never removes and a LoRA never changes, so a pruned or patched copy is known again; with the type,
    so is a copy in another precision.

    Args:
        weights: names in LDM's scheme, without prefix, so that it is the same on both backbones. Tensors without
            data (meta) are left out.
    """
    found: dict[str, Any] = {}
    for name in sorted(weights):
        tensor = weights[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.ndim != 1 or "transformer_blocks" in name or tensor.is_meta or dtype not in _DTYPES:
            continue
        values = tensor.detach()[:VALUES].float().tolist()
        if all(map(math.isfinite, values)):
            found[name] = {"dtype": dtype, "values": values}
    return found


def fingerprint_file(file: WeightsFile) -> dict[str, Any]:
    """:func:`fingerprint` of the UNet in an open file, of which only vectors are read.

    Raises:
        CheckpointError: if there is no SDXL-shaped UNet in it.
    """
    info = inspect_unet(file)
    vectors = [k for k in info.keys if len(file.shapes[k]) == 1]
    return fingerprint({info.ldm(k): file.read(k) for k in vectors})


def check_model(report: Report, model: Mapping[str, Any], name: str) -> None:
    """Refuse a report of another model.

    Args:
        model: its :func:`fingerprint`.
        name: what to call it.

    Raises:
        ReportError: if it was not measured on this model. A report that does not say on which one it was measured
            passes.
    """
    theirs = report.model.get("fingerprint")
    if not isinstance(theirs, Mapping) or not theirs or not model:
        return
    share = _equal_share(theirs, model)
    if share is None or share < _SAME:
        raise ReportError(
            f"the report was measured on {report.model.get('name')}, another model than {name}: measure this one, or "
            "leave the model out to use the report all the same"
        )


def _equal_share(a: Mapping[str, Any], b: Mapping[str, Any]) -> float | None:
    """The share of equal values among those that both have; None if they have none in common."""
    equal = whole = 0
    order = list(_DTYPES)
    for name in a.keys() & b.keys():
        try:
            coarse = _DTYPES[min(a[name]["dtype"], b[name]["dtype"], key=order.index)]
            x, y = (torch.tensor(side[name]["values"], dtype=torch.float32).to(coarse).float() for side in (a, b))
        except Exception as e:
            raise ReportError(f"the report's fingerprint is wrong at {name} ({e})") from None
        if x.shape != y.shape:
            return 0.0
        equal, whole = equal + int((x == y).sum()), whole + len(x)
    return equal / whole if whole else None
