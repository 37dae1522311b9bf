"""Files that the nodes write, whoever made the graph; see ``checks/saved_files.py``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from .in_process import Checks, Driver

SECONDS = 300


@pytest.fixture(scope="module")
def checks(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    out: Path = tmp_path_factory.mktemp("saved_files")
    return driver.run(out, SECONDS, "saved_files")


def test_a_workflow_cannot_overwrite_what_a_file_says_of_its_model(checks: Checks) -> None:
    metadata = checks["saved_files"]["metadata"]
    assert json.loads(metadata["pgp.plan"])["format"] == "pgp-diffsr/prune-plan"
    assert json.loads(metadata["pgp.model"])["topology"] == "pgp-nano"
    assert metadata["modelspec.title"] == "stranger_00001"
    assert checks["saved_files"]["loads"]


def test_what_can_be_kept_is_kept_and_the_rest_is_named_in_one_line(checks: Checks) -> None:
    metadata, said = checks["saved_files"]["metadata"], checks["saved_files"]["said"]
    own = {k for k in metadata if not k.startswith(("pgp.", "modelspec."))}
    assert own - {"format"} == {"prompt", "workflow", "small"}
    assert json.loads(metadata["small"]) == [1, 2.5, None, "é"]
    assert json.loads(metadata["workflow"])["nodes"][0]["title"] == "half a pair \ud83d, a whole one 😀"
    (line,) = [text for text in said if "left out" in text]
    assert line.endswith("and 5 more (10 in all)")
    assert "\n" not in line and len(line) < 800 and not any("\ud800" <= c <= "\udfff" for c in line)


def test_what_is_no_workflow_is_none(checks: Checks) -> None:
    assert all("workflow" not in names for names in checks["saved_files"]["no dict"])


def test_a_name_that_is_no_text_is_one_line(checks: Checks) -> None:
    kind, text = checks["saved_files"]["surrogate prefix"]
    assert kind == "CheckpointError" and "surrogate" in text


def test_what_another_process_saves_is_refused_and_nothing_stays(checks: Checks) -> None:
    kind, text = checks["saved_files"]["locked"]
    assert kind == "BusyError" and "is being written by process" in text and "\n" not in text
    others = [f"other_0000{i}_.safetensors" for i in (1, 2, 3)]
    assert checks["saved_files"]["left"] == [*others, "stranger_00001_.safetensors"]


def test_no_list_of_core_s_offers_what_a_killed_process_leaves(checks: Checks) -> None:
    result = checks["names_that_no_list_offers"]
    assert len(result["left"]) == 3 and os.sep not in "".join(result["left"])
    assert {"diffusion_models", "loras", "checkpoints", "vae"} <= result["offered"].keys()
    assert not any(result["offered"].values()), result["offered"]
    assert result["pictures"] == []
