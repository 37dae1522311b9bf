"""What our JSON formats share: a name and a version, each checked before anything else is read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..errors import PGPError
from .boundary import first_line
from .kinds import holds_weights
from .text import read_text


def loads(text: Any) -> Any:
    """JSON as its standard has it: Python's own reader also takes NaN and Infinity, and makes infinity of 1e999.

    Raises:
        ValueError, TypeError, RecursionError: as :func:`json.loads`, and ValueError for a number that is not finite.
    """
    return json.loads(text, parse_constant=_not_finite, parse_float=_finite)


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def parse_metadata(text: Any, key: str, source: str, error: type[PGPError]) -> Any:
    """The JSON that a safetensors file's metadata holds under a key.

    Raises:
        PGPError: of the class given, if it is not valid JSON.
    """
    try:
        return loads(text)
    # Of whatever kind: deep lists are a RecursionError, endless numbers Python's own ValueError.
    except Exception as e:
        raise error(f'{source}: its "{key}" is not valid JSON: {first_line(e)}') from None


def read_json(path: Path, kind: str, error: type[PGPError]) -> Any:
    """A file's JSON; see :func:`pgp_core.files.text.read_text`.

    Args:
        kind: what the file should be, for errors: "a plan".

    Raises:
        FileNotFoundError: if there is no such file.
        PGPError: of the class given, if it cannot be read or is not valid JSON.
    """
    try:
        if path.is_file() and holds_weights(path):
            raise error(f"{path} holds weights, and is not {kind}: give a JSON file")
        raw = read_text(path)
    except (FileNotFoundError, PGPError):
        raise
    # ValueError where a path holds a null character, or the file is no UTF-8.
    except (OSError, ValueError) as e:
        raise error(f"{path} cannot be read as {kind}: {first_line(e)}") from None
    try:
        return loads(raw)
    except Exception as e:
        raise error(f"{path} is not valid JSON: {first_line(e)}") from None


def check_format(data: Any, name: str, newest: int, source: str, kind: str, error: type[PGPError]) -> dict[str, Any]:
    """Parsed JSON that is an object of a format, in a version that this release reads.

    Args:
        name: of the format, what stands under ``"format"``.
        newest: the highest ``"version"`` that is read; versions count from 1.
        source: what to call the data in errors.
        kind: what the data should be, for errors; no article.

    Raises:
        PGPError: of the class given, naming what is wrong.
    """
    if not isinstance(data, dict) or data.get("format") != name:
        raise error(f'{source} is no {kind}: it has no "format": "{name}"')
    version = data.get("version")
    # True is an int in Python, but no version.
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise error(f'{source}: "version" must be a positive whole number, not {version!r}')
    if version > newest:
        raise error(f"{source} has format version {version}, this release reads up to {newest}: update the pack")
    return data
