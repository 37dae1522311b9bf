"""What the pack needs in ComfyUI is there already: nothing is installed."""

from __future__ import annotations

import re
import subprocess

import pytest

from .locate import PACK, Comfy

OURS = (PACK / "requirements.txt").read_text(encoding="utf-8").split()


def floors(lines: list[str]) -> dict[str, tuple[int, ...]]:
    """Packages and the least version of each, of lines that name a package alone or with a floor."""
    parts = [re.fullmatch(r"([A-Za-z0-9._-]+)(?:>=([0-9.]+))?", line.strip()) for line in lines]
    return {m[1].lower(): tuple(map(int, (m[2] or "0").split("."))) for m in parts if m}


def test_comfyui_s_own_requirements_satisfy_ours(comfy: Comfy) -> None:
    ours, theirs = floors(OURS), floors((comfy.path / "requirements.txt").read_text(encoding="utf-8").splitlines())
    assert len(ours) == len(OURS), "floors only: what ComfyUI has may be newer"
    assert not {name for name, floor in ours.items() if name not in theirs or floor > theirs[name]}


def test_installing_the_pack_installs_nothing(comfy: Comfy, report: dict[str, str]) -> None:
    command = [str(comfy.python), "-m", "pip", "install", "--dry-run", "--no-index", "-r", "requirements.txt"]
    done = subprocess.run(command, cwd=PACK, capture_output=True, text=True, timeout=120)
    if "No module named pip" in done.stderr:
        report["requirements"] = "requirements.txt was NOT tried in ComfyUI: its Python has no pip"
        pytest.skip("ComfyUI's Python has no pip")
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout
    assert done.stdout.count("Requirement already satisfied") >= len(OURS)
