"""Starts ``driver.py`` in ComfyUI's Python and reads what its checks found."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from .comfy_server import environment
from .locate import Comfy

MARK = "PGP-CHECK "
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Checks:
    """Results of all checks."""

    lines: dict[str, dict[str, Any]]
    folder: Path
    log: str

    def __getitem__(self, name: str) -> Any:
        """A check's result; the test fails where it has none."""
        line = self.lines.get(name)
        if line is None:
            pytest.fail(f"the driver did not reach {name}:\n{self.log[-4000:]}", pytrace=False)
        if "error" in line:
            pytest.fail(f"{name}, inside ComfyUI's Python:\n{line['error']}", pytrace=False)
        return line["result"]

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """What a check saved."""
        return load_file(self.folder / f"{name}.safetensors")


def run_checks(comfy: Comfy, pack: Path, folder: Path, seconds: float, *modules: str) -> Checks:
    """Run every check of some of ``checks/``'s modules, one process for all."""
    # fmt: off
    command = [
        str(comfy.python), str(HERE / "isolated.py"), str(HERE / "driver.py"),
        "--comfy", str(comfy.path), "--pack", str(pack), "--out", str(folder),
        *(("--modules", *modules) if modules else ()),
    ]
    # fmt: on
    log = folder / "driver.log"
    with log.open("wb") as file:
        subprocess.run(
            # ComfyUI makes folders in the working directory's place for some imports; none shall be in a checkout.
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    text = log.read_text(encoding="utf-8", errors="replace")
    found = [json.loads(line[len(MARK) :]) for line in text.splitlines() if line.startswith(MARK)]
    return Checks({line["name"]: line for line in found}, folder, text)
