"""Quantised files: fp8 with scales is read as what it stands for, other kinds are named."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..errors import CheckpointError
from .boundary import parsing

if TYPE_CHECKING:
    from .weights import WeightsFile

_FP8 = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
#: A layer's factor: the names of ComfyUI's first files of this kind and of its present ones.
_SCALES = (".scale_weight", ".weight_scale")
#: Factors of what goes into a layer: for arithmetic in fp8, which is not made here.
_INPUTS = (".scale_input", ".input_scale")
_SAYS, _MARK = ".comfy_quant", "scaled_fp8"
_SAYS_IN_METADATA = "_quantization_metadata"

_READ_BY_CORE = "ComfyUI's other kinds"
#: Endings of names by what made them.
_OTHERS = {
    "bitsandbytes, 4 bits": (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state"),
    "bitsandbytes, 8 bits": (".SCB", ".weight_format"),
    "GPTQ, AWQ or SVDQuant": (".qweight", ".qzeros", ".wscales", ".wzeros"),
    "quanto": ("._data", "._scale"),
    "torchao": (".layout_tensor", ".original_weight_tensor"),
    _READ_BY_CORE: (_SAYS, ".weight_scale_2", ".weight_s_rel", ".weight_scale_inv", _MARK, *_SCALES, *_INPUTS),
}


def name_quantised(names: Iterable[str]) -> str | None:
    """How weights are quantised, where names say so, and what to do: for a message; None where they do not."""
    names = list(names)
    for kind, endings in _OTHERS.items():
        # bitsandbytes puts the kind of its four bits behind its last ending.
        found = next((n for n in names if n.endswith(endings) or f"{endings[-1]}." in n), None)
        if found is not None:
            core = "; ComfyUI's own loader reads this one" if kind == _READ_BY_CORE else ""
            return f"is quantised ({kind}: {found}): take the unquantised file, or one in plain fp8{core}"
    return None


def without_scales(file: WeightsFile) -> WeightsFile:
    """A view of a file in which fp8 weights are already multiplied by their factors: one a layer, or one an output.

    They have the type of the file's other weights. Layers that are quantised in another way are left as they are; see
    :func:`name_quantised`.
    """
    stated = _stated(file)
    scales: dict[str, str] = {}
    storage: dict[str, torch.dtype] = {}
    for name in file.shapes:
        layer = next((name.removesuffix(s) for s in _SCALES if name.endswith(s)), None)
        weight = f"{layer}.weight"
        if layer is None or weight not in file.shapes or stated.get(layer, torch.uint8) is None:
            continue
        # Early files keep fp8 as bytes, and say so.
        form = file.dtypes.get(weight) or stated.get(layer)
        if form is not None and form in _FP8.values() and _fits(file.shapes[name], file.shapes[weight]):
            scales[weight], storage[weight] = name, form
    if not scales:
        return file
    layers = {w.removesuffix(".weight") for w in scales}
    gone = {layer + ending for layer in layers for ending in (*_SCALES, *_INPUTS, _SAYS)}
    kept = [k for k in file.shapes if k not in gone and not _is_mark(k)]
    wide = _other_type(file, scales)

    def read(name: str) -> torch.Tensor:
        tensor = file.read(name)
        if name not in scales:
            return tensor
        stored = tensor.view(storage[name]) if tensor.dtype == torch.uint8 else tensor
        scale = file.read(scales[name]).float().flatten()
        if not bool(torch.isfinite(scale).all()):
            raise CheckpointError(f"{file.name}: {scales[name]} is not finite: get the file again")
        wanted = stored.float() * scale.view(-1, *(1 for _ in stored.shape[1:]))
        return wanted.to(wide)

    return replace(
        file,
        shapes={k: file.shapes[k] for k in kept},
        floating=frozenset(k for k in kept if k in file.floating or k in scales),
        read=read,
        dtypes={k: wide if k in scales else file.dtypes[k] for k in kept if k in scales or k in file.dtypes},
        notes=(*file.notes, f"{len(scales)} layers are fp8 with scales: read as {str(wide).removeprefix('torch.')}"),
    )


def _stated(file: WeightsFile) -> dict[str, torch.dtype | None]:
    """Layers that say how they are stored, and as what; None for other kinds than fp8."""
    said: dict[str, Any] = {}
    if text := file.metadata.get(_SAYS_IN_METADATA):
        with parsing(f'{file.name}: its metadata "{_SAYS_IN_METADATA}"', CheckpointError):
            layers = json.loads(text)["layers"]
            said |= {str(k): v for k, v in layers.items()}
    for name in file.shapes:
        if name.endswith(_SAYS):
            with parsing(f"{file.name}: {name}", CheckpointError):
                if math.prod(file.shapes[name]) > 1 << 16:
                    raise ValueError("it is too long")
                said[name.removesuffix(_SAYS)] = json.loads(bytes(file.read(name).flatten().tolist()))
    return {k: _FP8.get(v.get("format", "")) if isinstance(v, Mapping) else None for k, v in said.items()}


def _is_mark(name: str) -> bool:
    return name == _MARK or name.endswith(f".{_MARK}")


def _fits(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Whether a factor is one number, or one for each output of the layer."""
    numbers = math.prod(scale)
    return numbers == 1 or (bool(weight) and bool(scale) and numbers == weight[0] == scale[0])


def _other_type(file: WeightsFile, scales: Mapping[str, str]) -> torch.dtype:
    """The most precise type of the weights that have no factor; float16 where there are none."""
    about = (*_SCALES, *_INPUTS, _SAYS, _MARK)
    others = {v for k, v in file.dtypes.items() if k not in scales and not k.endswith(about)}
    return next((t for t in (torch.float32, torch.bfloat16, torch.float16) if t in others), torch.float16)
