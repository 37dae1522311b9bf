"""Plans as files, under plain names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import PlanError
from ..files.atomic import replacing
from ..unet.plan import PrunePlan

#: What some system takes for a path, a drive or a device.
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_LONGEST = 100


def check_name(name: str) -> str:
    """A plan's name, which must be able to be a file's.

    Raises:
        PlanError: if it is empty, too long, or holds a path.
    """
    if not isinstance(name, str) or not name.strip():
        raise PlanError("the plan needs a name")
    if _FORBIDDEN.search(name) or name.startswith(".") or name != name.strip() or name.endswith("."):
        raise PlanError(
            f"{name!r} is no name for a plan: it must be a plain name, without a path, a dot at either end, spaces "
            'around it, or any of / \\ : * ? " < > |'
        )
    if _DEVICES.fullmatch(name):
        raise PlanError(f"{name!r} is no name for a plan: Windows keeps it for a device")
    if len(name.encode()) > _LONGEST:
        raise PlanError(f"the plan's name has {len(name.encode())} bytes; {_LONGEST} are allowed")
    return name


def plan_path(folder: str | os.PathLike[str], name: str) -> Path:
    """Where a plan of that name lies in a folder.

    Raises:
        PlanError: if the name is not plain, see :func:`check_name`.
    """
    name = name[:-5] if isinstance(name, str) and name.lower().endswith(".json") else name
    return Path(folder) / f"{check_name(name)}.json"


def save_plan(plan: PrunePlan, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a plan's file, whole or not at all.

    Raises:
        PlanError: if the path does not end in .json, is taken (unless ``overwrite``), or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".json":
        raise PlanError(f"{path} does not end in .json, which plans do")
    if path.is_dir():
        raise PlanError(f"{path} is a folder: choose a file's name")
    if path.exists() and not overwrite:
        raise PlanError(f"{path} is there already: choose another name, or overwrite it")
    try:
        with replacing(path) as temporary:
            temporary.write_text(plan.dumps(), encoding="utf-8")
    except OSError as e:
        raise PlanError(f"{path} cannot be written: {e}") from None
