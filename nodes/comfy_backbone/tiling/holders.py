"""Where other packs' patches on a MODEL may keep something from one call to the next."""

from __future__ import annotations

import collections
import dis
import functools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import comfy.ops
import torch

#: A patch with more than this many is no cache, but has a log or a library in reach, and is left alone.
_MOST = 5000

#: Whose objects and functions keep nothing of a latent: Python's, PyTorch's, core's, and this pack's.
_OTHERS = {"torch", "torchvision", "torchaudio", "numpy", "PIL", "einops", "transformers", "safetensors", "scipy"}
_CORE = {"comfy", "comfy_api", "comfy_execution", "comfy_aimdo", "comfy_kitchen", "execution", "server", "nodes"}
_NOT_ENTERED = _OTHERS | _CORE
_SKIPPED = _NOT_ENTERED | set(sys.stdlib_module_names)
_PACK = __name__.removesuffix(".nodes.comfy_backbone.tiling.holders")


class Holder:
    """A mutable thing with slots: attributes, closure variables, global variables, entries of a dict or list."""

    #: Whether slots are places in a list, which mean nothing one by one.
    ordered = False
    #: Of a closure's variable; other slots bear their names themselves.
    name = ""

    def __init__(self, owner: Any):
        #: Kept, so that its id stays its own.
        self.owner = owner

    def read(self) -> dict[Any, Any]:
        """Slots and what is in them; a copy."""
        raise NotImplementedError

    def write(self, content: dict[Any, Any]) -> None:
        """Put back what was read."""
        raise NotImplementedError


class _Names(Holder):
    """A dict, or those of its keys that ``keep`` takes."""

    def __init__(self, owner: dict[Any, Any], keep: Callable[[Any, Any], bool] | None = None):
        super().__init__(owner)
        self._keep = keep

    def read(self) -> dict[Any, Any]:
        if self._keep is None:
            return dict(self.owner)
        return {k: v for k, v in self.owner.items() if self._keep(k, v)}

    def write(self, content: dict[Any, Any]) -> None:
        now = self.read()
        for gone in now.keys() - content.keys():
            del self.owner[gone]
        for k, v in content.items():
            if k not in now or now[k] is not v:
                self.owner[k] = v


class _Items(Holder):
    """A list, a deque or a set."""

    ordered = True

    def read(self) -> dict[Any, Any]:
        return dict(enumerate(self.owner))

    def write(self, content: dict[Any, Any]) -> None:
        now = list(self.owner)
        if len(now) == len(content) and all(a is b for a, b in zip(now, content.values(), strict=True)):
            return
        self.owner.clear()
        add = self.owner.update if isinstance(self.owner, set) else self.owner.extend
        add(content.values())


class _Cell(Holder):
    """A closure's variable."""

    def __init__(self, owner: types.CellType, name: str):
        super().__init__(owner)
        self.name = name

    def read(self) -> dict[Any, Any]:
        try:
            return {"": self.owner.cell_contents}
        except ValueError:
            return {}

    def write(self, content: dict[Any, Any]) -> None:
        if content:
            self.owner.cell_contents = content[""]
        elif self.read():
            del self.owner.cell_contents


def holders(root: Any) -> dict[int, Holder]:
    """Every holder that can be reached from a callable or an object of another pack's, by its owner's id.

    Models, tensors, and what belongs to Python, PyTorch, core or this pack are not entered. Nothing where there is far
    more than a cache has.
    """
    found: dict[int, Holder] = {}
    seen: set[int] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        if id(value) in seen or value is None or isinstance(value, (str, bytes, int, float, torch.Tensor, type)):
            continue
        seen.add(id(value))
        if isinstance(value, Holder):
            found.setdefault(id(value.owner), value)
            if len(found) > _MOST:
                return {}
            stack.extend(value.read().values())
        else:
            stack.extend(_parts(value))
    return found


def _parts(value: Any) -> Iterator[Any]:
    """Holders of a value and values in it."""
    if isinstance(value, dict):
        yield _Names(value)
    elif isinstance(value, (list, set, collections.deque)):
        yield _Items(value)
    elif isinstance(value, (tuple, frozenset)):
        yield from value
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.FunctionType):
        if not _is_skipped(value.__module__):
            yield from _of_function(value)
    elif isinstance(value, torch.nn.Module):
        yield from _of_module(value)
    elif isinstance(value, types.SimpleNamespace):
        yield _Names(vars(value))
    elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, types.ModuleType):
        kind = type(value)
        if _is_skipped(kind.__module__) or any(c.__module__.partition(".")[0] in _NOT_ENTERED for c in kind.__mro__):
            return
        yield _Names(vars(value))
        # For the global variables that its methods use.
        yield from (f for f in vars(kind).values() if isinstance(f, types.FunctionType))


def is_ours(value: Any) -> bool:
    """Whether a function or an object is this pack's."""
    function = getattr(value, "__func__", value)
    return _is_in_pack(function.__module__ if isinstance(function, types.FunctionType) else type(value).__module__)


def _is_in_pack(module: Any) -> bool:
    return f"{module}.".startswith(f"{_PACK}.")


def _is_skipped(module: Any) -> bool:
    return str(module).partition(".")[0] in _SKIPPED or _is_in_pack(module)


def _of_function(function: types.FunctionType) -> Iterator[Any]:
    yield from map(_Cell, function.__closure__ or (), function.__code__.co_freevars)
    if vars(function):
        yield _Names(vars(function))
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    stored, loaded = _global_names(function.__code__)
    names, package = function.__globals__, str(function.__module__).partition(".")[0]
    if stored:
        yield _Names(names, lambda k, _: k in stored)
    for name in loaded:
        value = names.get(name)
        if isinstance(value, types.ModuleType):
            if value.__name__.partition(".")[0] == package:
                yield from (v for v in map(vars(value).get, loaded) if _is_of(v, package))
        elif _is_of(value, package):
            yield value


def _is_of(value: Any, package: str) -> bool:
    """Whether what a global variable holds is a pack's own function, object or container."""
    if isinstance(value, (dict, list, set, collections.deque)):
        return True
    module = value.__module__ if isinstance(value, types.FunctionType) else type(value).__module__
    return str(module).partition(".")[0] == package and not isinstance(value, type)


@functools.lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Global variables that code sets, and all names that it asks for; with the functions defined in it."""
    stored, loaded = set(), set(code.co_names)
    for instruction in dis.get_instructions(code):
        if instruction.opname == "STORE_GLOBAL":
            stored.add(instruction.argval)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            more = _global_names(inner)
            stored |= more[0]
            loaded |= more[1]
    return frozenset(stored), frozenset(loaded)


def _of_module(module: torch.nn.Module) -> Iterator[Any]:
    """What was set on a module; its weights and core's bookkeeping of them stay out."""
    if isinstance(module, comfy.ops.CastWeightBiasOp) or type(module).__module__.partition(".")[0] == "torch":
        return
    yield _Names(
        vars(module),
        lambda k, v: not k.startswith("_") and k != "training" and not isinstance(v, torch.nn.Module),
    )
    if not _is_skipped(type(module).__module__):
        yield from module.children()
