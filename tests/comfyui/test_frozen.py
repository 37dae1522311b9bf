"""The workflows of every release: today's nodes take them. ``test_browser.py`` opens them in the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .comfy_server import Server
from .freeze import FOLDER, FROZEN, is_released, prompt_of, read, version
from .locate import WORKFLOWS
from .ui_to_prompt import to_prompt


def by_release(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.skipif(is_released(), reason="released: it stays as it is")
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_what_is_not_released_is_frozen_as_it_stands(path: Path, object_info: dict[str, Any]) -> None:
    """Until the day of the release; if it is not: ``python -m tests.comfyui.freeze``."""
    frozen = FOLDER / version() / path.name
    assert frozen.read_bytes() == path.read_bytes()
    assert read(prompt_of(frozen)) == to_prompt(read(path), object_info)


def test_every_release_is_frozen_whole() -> None:
    folder = FOLDER / version()
    frozen = {p.name for p in folder.glob("*.json")}
    assert frozen == {p.name for p in (folder / "prompts").iterdir()}
    if not is_released():
        assert frozen == {p.name for p in WORKFLOWS}


@pytest.mark.parametrize("path", FROZEN, ids=by_release)
def test_what_a_release_sent_to_comfyui_is_still_taken(path: Path, server: Server) -> None:
    assert_only_files_are_missing(server.refusals(_without_pictures(read(prompt_of(path)))))


def test_another_choice_or_a_lost_input_would_be_seen(server: Server) -> None:
    frozen = next(p for p in FROZEN if p.stem == "upscale-4k-nano")
    prompt = _without_pictures(read(prompt_of(frozen)))
    (tiling,) = (n["inputs"] for n in prompt.values() if n["class_type"] == "PGPDiffSRTiling")
    tiling["blend"] = "no such blend"
    del tiling["overlap"]
    said = {entry for entry in server.refusals(prompt) if entry[0] == "PGPDiffSRTiling"}
    assert said == {
        ("PGPDiffSRTiling", "value_not_in_list", "blend"),
        ("PGPDiffSRTiling", "required_input_missing", "overlap"),
    }


def _without_pictures(prompt: dict[str, Any]) -> dict[str, Any]:
    """It must not run: that is what the tests of the shipped ones are for."""
    for node in prompt.values():
        name = {"LoadImage": "image", "LoadVideo": "file"}.get(node["class_type"])
        if name:
            node["inputs"][name] = "no such file"
    return prompt


def assert_only_files_are_missing(refusals: set[tuple[str, str, str]]) -> None:
    """Pictures, videos and full-size models are the user's."""
    assert refusals, "without its picture it cannot be taken"
    for kind, error, name in refusals:
        assert error in ("value_not_in_list", "custom_validation_failed"), (kind, error, name)
        assert (kind, name) in (("LoadImage", "image"), ("LoadVideo", "file")) or name.endswith("_name"), (kind, name)
