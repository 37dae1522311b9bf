"""What a patch within a MODEL leaves for a function of the same pack's that core calls outside of it.

Self-attention guidance is the example: a patch stores the attention of a block, and a function behind CFG reads it.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from typing import Any

from comfy.patcher_extension import WrappersMP

#: Where core keeps functions that it calls for the whole picture.
_FUNCTIONS = (
    "sampler_cfg_function", "sampler_post_cfg_function", "sampler_pre_cfg_function", "sampler_calc_cond_batch_function",
    "denoise_mask_function",
)  # fmt: skip
_WRAPPERS = (WrappersMP.OUTER_SAMPLE, WrappersMP.SAMPLER_SAMPLE, WrappersMP.PREDICT_NOISE, WrappersMP.CALC_COND_BATCH)


def outside(model_options: dict[str, Any]) -> list[Any]:
    """Functions on a MODEL that are called for the whole picture."""
    found: list[Any] = []
    for name in _FUNCTIONS:
        value = model_options.get(name)
        found += value if isinstance(value, list) else [] if value is None else [value]
    wrappers = model_options.get("transformer_options", {}).get("wrappers", {})
    return found + [w for kind in _WRAPPERS for ws in wrappers.get(kind, {}).values() for w in ws]


def reads(function: Any, owner: Any, slot: Any) -> bool:
    """Whether a function uses a closure variable or an attribute.

    Args:
        owner: the variable's cell, or the ``__dict__`` of the attribute's object.
        slot: the attribute's name.
    """
    code = _code(function)
    if code is None:
        return False
    if any(c is owner for c in _cells(function).values()):
        return True
    return _attributes(function) is owner and slot in code.co_names


def leaves(patch: Any, function: Any) -> bool:
    """Whether a patch sets a closure variable or an attribute that a function uses."""
    code = _code(patch)
    if code is None or _code(function) is None:
        return False
    variables, attributes = _set_by(code)
    cells = _cells(patch)
    if any(reads(function, cells[v], None) for v in variables if v in cells):
        return True
    owner = _attributes(patch)
    return owner is not None and any(reads(function, owner, a) for a in attributes)


def label(function: Any) -> str:
    """What to call a function's pack: the name of its class or of the function that made it, and of its file."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    name = str(getattr(named, "__qualname__", "a patch")).partition(".")[0]
    module = str(getattr(named, "__module__", "") or "").replace("\\", "/").rpartition("/")[2]
    return f"{name} ({module})" if module else name


def _code(function: Any) -> types.CodeType | None:
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        function = vars(type(function)).get("__call__")
    return function.__code__ if isinstance(function, types.FunctionType) else None


def _attributes(function: Any) -> Any:
    """Those of a method's object, or of a callable object; None for a plain function."""
    if isinstance(function, types.FunctionType):
        return None
    return getattr(getattr(function, "__self__", function), "__dict__", None)


def _cells(function: Any) -> dict[str, Any]:
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        return {}
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


@functools.lru_cache(maxsize=1024)
def _set_by(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(_names(code, "STORE_DEREF")), frozenset(_names(code, "STORE_ATTR"))


def _names(code: types.CodeType, operation: str) -> Iterator[str]:
    return (i.argval for i in dis.get_instructions(code) if i.opname == operation)
