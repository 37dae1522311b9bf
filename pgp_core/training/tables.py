"""From TOML tables to dataclasses: every key checked, the bad one named."""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import ConfigError

T = TypeVar("T")

#: Characters of a wrong value that a message repeats.
_SHOWN = 60
_LARGEST = 2**63 - 1


class FromCommandLine(str):
    """A text that did not come from the file: paths in it count from the working directory."""


def limits(
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    one_of: tuple[str, ...] = (),
    inputs: bool = True,
) -> dict[str, Any]:
    """Metadata of a dataclass field: a range (of each number in it), or a choice of words.

    Args:
        inputs: for paths: relative ones count from the file's folder, not from the working directory.
    """
    return {"at_least": at_least, "above": above, "at_most": at_most, "one_of": one_of, "inputs": inputs}


def read_table(kind: type[T], table: Any, where: str, source: str, root: Path) -> T:
    """A table as a dataclass.

    Fields may be bool, int, float, str, Path, tuples of these, dicts of str to these, other dataclasses (tables), and
    any of these or None (a key that may be left out).

    Args:
        where: the table's name, empty for the whole file.
        source: what to call the file in errors.
        root: where relative paths count from.

    Raises:
        ConfigError: naming the key, and what was expected.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{source}: {where} must be a table, [{where}], not {_shown(table)}")
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    types_of = get_type_hints(kind)
    for key in table:
        if key not in fields:
            raise ConfigError(f"{source}: {_unknown(key, where, tuple(fields))}")
    values = {}
    for name, f in fields.items():
        path = f"{where}.{name}" if where else name
        if name in table:
            values[name] = _value(types_of[name], table[name], f.metadata, path, source, root)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{source}: {path} is missing: it must be {_wanted(types_of[name], f.metadata)}")
    return kind(**values)


def _unknown(key: str, where: str, names: tuple[str, ...]) -> str:
    place = f"[{where}]" if where else "a run"
    near = difflib.get_close_matches(str(key)[:_SHOWN], names, 1, 0.5)
    known = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    return f"{place} has no {_shown(key)}; {known}"


def _value(hint: Any, value: Any, rules: Mapping[str, Any], path: str, source: str, root: Path) -> Any:
    wrong = ConfigError(f"{source}: {path} must be {_wanted(hint, rules)}, not {_shown(value)}")
    options = _options(hint)
    if options is not None:
        return _value(options, value, rules, path, source, root)
    if dataclasses.is_dataclass(hint):
        return read_table(hint, value, path, source, root)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        items = get_args(hint)
        endless = len(items) == 2 and items[1] is Ellipsis
        if not isinstance(value, list) or (not endless and len(value) != len(items)):
            raise wrong
        each = [items[0]] * len(value) if endless else items
        found = tuple(_value(h, v, rules, f"each of {path}", source, root) for h, v in zip(each, value, strict=True))
        numbers = not endless and all(isinstance(v, (int, float)) for v in found)
        if numbers and len(found) == 2 and found[0] > found[1] and not rules.get("unordered"):
            raise ConfigError(f"{source}: {path} goes from {found[0]} down to {found[1]}: the smaller one comes first")
        return found
    if get_origin(hint) is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise wrong
        inner = get_args(hint)[1] if get_args(hint) else Any
        return {str(k): _value(inner, v, rules, f'{path}."{k}"', source, root) for k, v in value.items()}
    if hint is Any:
        return value
    if hint is Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise wrong
        here = isinstance(value, FromCommandLine) or not rules.get("inputs", True)
        # Unlike Path's own, this leaves a home that is not known as it is written.
        expanded = os.path.expanduser(value)
        return Path(expanded) if here else root / expanded
    if hint is str:
        if not isinstance(value, str) or (rules.get("one_of") and value not in rules["one_of"]):
            raise wrong
        return value
    if hint is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (hint is int and not isinstance(value, int)):
        raise wrong
    # No number of a configuration is near these; beyond them whole numbers are no floats, and no seeds.
    if not -_LARGEST <= value <= _LARGEST or not _inside(value, rules):
        raise wrong
    return hint(value)


def _options(hint: Any) -> Any:
    """``X`` of ``X | None``, else None."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(a for a in get_args(hint) if a is not type(None))
    return None


def _inside(value: float, rules: Mapping[str, Any]) -> bool:
    low, above, high = rules.get("at_least"), rules.get("above"), rules.get("at_most")
    return (low is None or value >= low) and (above is None or value > above) and (high is None or value <= high)


def _wanted(hint: Any, rules: Mapping[str, Any]) -> str:
    """What a key must be, in words."""
    options = _options(hint)
    if options is not None:
        return _wanted(options, rules)
    if rules.get("one_of"):
        listed = ", ".join(f'"{w}"' for w in rules["one_of"])
        return f"a list of {listed}" if get_origin(hint) is tuple else f"one of {listed}"
    if get_origin(hint) is tuple:
        items = get_args(hint)
        many = "a list" if items[-1] is Ellipsis else f"a list of {len(items)}"
        return f"{many}, each {_wanted(items[0], rules)}"
    if dataclasses.is_dataclass(hint) or get_origin(hint) is dict or hint is dict:
        return "a table"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
    parts = [names.get(hint, "a value")]
    if rules.get("at_least") is not None:
        parts.append(f"of at least {rules['at_least']:g}")
    if rules.get("above") is not None:
        parts.append(f"above {rules['above']:g}")
    if rules.get("at_most") is not None:
        parts.append(f"and at most {rules['at_most']:g}" if len(parts) > 1 else f"of at most {rules['at_most']:g}")
    return " ".join(parts)


def _shown(value: Any) -> str:
    try:
        text = repr(str(value)) if isinstance(value, str) else str(value)
    except ValueError:
        # Python prints no whole number of more than 4,300 digits.
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
