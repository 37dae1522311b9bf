"""Damaged, foreign and wrong files in ComfyUI's loaders; see ``checks/mutated.py``."""

from __future__ import annotations

from pathlib import Path

import faithdiff_file
import mutations
import pytest
import wrong_files
from safetensors.torch import load_file

from .in_process import Checks, Driver

SECONDS = 500
#: What one file may take.
LONGEST = 10
ERRORS = {"CheckpointError", "GuidanceError", "PlanError"}


@pytest.fixture(scope="module")
def checks(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    out: Path = tmp_path_factory.mktemp("mutated")
    faithdiff_file.write_bases(out / "files")
    wrong_files.write(out / "files" / "wrong", load_file(out / "files" / mutations.UNET))
    return driver.run(out, SECONDS, "mutated")


def _wrong(name: str, error: list[str], seconds: float, warned: list[str]) -> str:
    """What is wrong with how a file was taken or refused."""
    found = []
    if error and error[0] not in ERRORS:
        found.append(f"{error[0]}: {error[1]}")
    elif error and (len(error[1].splitlines()) != 1 or name not in error[1] or len(error[1]) > 800):
        found.append(f"unclear: {error[1]!r}")
    if seconds > LONGEST:
        found.append(f"{seconds:.0f} s")
    return "; ".join(found + [f"warns: {w}" for w in warned])


def test_mutated_files_run_or_are_refused_in_one_line(checks: Checks) -> None:
    results = checks["mutated"]
    assert len({file for file, *_ in results}) >= 200
    # The check writes each under one name, so that messages are looked at for it.
    judged = {f"{action} {file!r}": _wrong("mutated", *outcome) for file, action, *outcome in results}
    assert {k: v for k, v in judged.items() if v} == {}
    taken = sum(not error for _, _, error, *_ in results)
    assert 20 <= taken <= len(results) / 2


@pytest.mark.parametrize("name", wrong_files.FILES)
def test_wrong_files_are_told_what_they_are(name: str, checks: Checks) -> None:
    error, seconds, warned = checks["wrong_files"][name]
    assert _wrong(name, error, seconds, warned) == ""
    assert wrong_files.FILES[name].words in error[1]
