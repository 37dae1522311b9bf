"""What a graph says of itself, as it may stand in a model's file beside what the file says of the model.

A workflow comes from the browser, and may have come from anyone: it may be of any size, hold what no file can keep, and
use names by which loaders know a model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from ...pgp_core.errors import name_some
from ...pgp_core.files.safetensors_stream import storable
from ...pgp_core.visible import visible

log = logging.getLogger(__name__)

#: Beginnings of names that say what a model is; no graph may set them.
RESERVED = ("pgp.", "modelspec.", "ss_", "__")
RESERVED_NAMES = ("format",)
#: Characters of all that is kept. Readers refuse a header of 100 MB, and 16 is far beyond any workflow.
LARGEST = 16 << 20


def workflow_metadata(prompt: Any, extra_pnginfo: Any, taken: Mapping[str, str]) -> dict[str, str]:
    """Prompt and workflow as metadata; what cannot be kept is left out, which is said in one line of the log.

    Args:
        prompt: the graph as it was run, or None.
        extra_pnginfo: names to what the browser sent, ``workflow`` among them, or None.
        taken: the metadata that the file has already; it stays.
    """
    given = {"prompt": prompt, **(extra_pnginfo if isinstance(extra_pnginfo, Mapping) else {})}
    kept: dict[str, str] = {}
    dropped: dict[str, str] = {}
    size = 0
    for name, value in given.items():
        if value is None:
            continue
        if not isinstance(name, str) or not name or not storable(name):
            dropped[visible(name)[:60]] = "its name is no text"
        elif name in taken or name in RESERVED_NAMES or name.lower().startswith(RESERVED):
            dropped[visible(name)[:60]] = "its name is the model's own"
        else:
            try:
                text = json.dumps(value)
            # It may refer to itself, be too deep, or hold an object of some node's.
            except Exception as e:
                dropped[visible(name)[:60]] = f"it is no JSON ({type(e).__name__})"
                continue
            if size + len(name) + len(text) > LARGEST:
                dropped[visible(name)[:60]] = f"it takes {len(text)} characters"
                continue
            size += len(name) + len(text)
            kept[name] = text
    if dropped:
        told = name_some((f"{name} ({why})" for name, why in dropped.items()), 5)
        log.warning("PGP-DiffSR: left out of the saved file's metadata: %s", told)
    return kept
