"""What our JSON formats share: a name and a version, each checked before anything else is read."""

from __future__ import annotations

import json
from typing import Any

from .errors import PGPError


def parse_metadata(text: Any, key: str, source: str, error: type[PGPError]) -> Any:
    """The JSON that a safetensors file's metadata holds under a key.

    Raises:
        PGPError: of the class given, if it is not valid JSON.
    """
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as e:
        raise error(f'{source}: its "{key}" is not valid JSON: {e}') from None


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
