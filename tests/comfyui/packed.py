"""The pack as people get it: a copy without what ``.comfyignore`` leaves out, under another name."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path

#: No import of ours may depend on the folder's name; a dot is what archives of releases bring.
FOLDER = "renamed-pack-1.0"


def copy_pack(pack: Path, custom_nodes: Path) -> Path:
    """Copy into ``custom_nodes`` and return the copy's path."""
    ignored = _ignored(pack / ".comfyignore")

    def leave_out(folder: str, names: list[str]) -> set[str]:
        top = Path(folder) == pack
        return {
            name
            for name in names
            if name == "__pycache__"
            or name.endswith(".egg-info")
            or (top and (name.startswith(".") or any(fnmatch.fnmatch(name, p) for p in ignored)))
        }

    copy = custom_nodes / FOLDER
    shutil.copytree(pack, copy, ignore=leave_out)
    return copy


def _ignored(file: Path) -> list[str]:
    """Patterns of top-level names; other forms of the file's language are not needed here."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    return [line.strip("/") for line in lines if line and not line.startswith("#")]
