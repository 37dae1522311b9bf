"""Freezes the workflows of the version that comes next.

    python -m tests.comfyui.freeze

writes ``frozen/<version>``: the shipped workflows, and in ``prompts/`` what they convert to, by which a later release
sees that no node, input or value was lost. Needs ComfyUI, as all tests of this folder do.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from .comfy_server import running
from .locate import PACK, WORKFLOWS, locate
from .ui_to_prompt import to_prompt

FOLDER = Path(__file__).with_name("frozen")
#: Every workflow of every release so far.
FROZEN = sorted(FOLDER.glob("*/*.json"))


def version() -> str:
    """The pack's."""
    found = re.search(r'^version = "([^"]+)"$', (PACK / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found[1]


def is_released() -> bool:
    """Whether the changelog gives that version a date."""
    return f"## {version()} (unreleased)" not in (PACK / "CHANGELOG.md").read_text(encoding="utf-8")


def read(file: Path) -> dict[str, Any]:
    """A JSON file."""
    return dict(json.loads(file.read_text(encoding="utf-8")))


def prompt_of(frozen: Path) -> Path:
    """Where lies what a frozen workflow converted to."""
    return frozen.parent / "prompts" / frozen.name


def freeze(folder: Path, object_info: dict[str, Any]) -> None:
    """Write the workflows as they stand, in the place of what was frozen of this version before."""
    shutil.rmtree(folder, ignore_errors=True)
    for workflow in WORKFLOWS:
        target = folder / workflow.name
        prompt_of(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(workflow, target)
        text = json.dumps(to_prompt(read(workflow), object_info), indent=1, ensure_ascii=False)
        prompt_of(target).write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """The command."""
    if is_released():
        raise SystemExit(f"{version()} is released: what was frozen of it stays as it is")
    with tempfile.TemporaryDirectory() as folder, running(locate(), PACK, Path(folder) / "base") as server:
        freeze(FOLDER / version(), server.get_json("/object_info"))


if __name__ == "__main__":
    main()
