"""Starts ``driver.py`` in ComfyUI's Python and reads what its checks found."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
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


class Driver:
    """``driver.py`` in ComfyUI's Python: one process for many checks, since importing ComfyUI takes long."""

    def __init__(self, comfy: Comfy, pack: Path, folder: Path):
        self.command = [str(comfy.python), str(HERE / "isolated.py"), str(HERE / "driver.py")]
        self.command += ["--comfy", str(comfy.path), "--pack", str(pack)]
        self.folder, self.log = folder, folder / "driver.log"
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, out: Path, seconds: float, *modules: str) -> Checks:
        """Run every check of some of ``checks/``'s modules; tensors go to ``out``.

        Where the process ends, or takes too long, checks are missing from the result; the next call starts another.
        """
        process = self._started()
        before = self.log.stat().st_size
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps({"modules": modules, "out": str(out)}).encode() + b"\n")
            process.stdin.flush()
        end = time.monotonic() + seconds
        while True:
            ended = process.poll() is not None or time.monotonic() > end
            text = self.log.read_bytes()[before:].decode("utf-8", errors="replace")
            # The last line may be half written.
            whole = text[: text.rfind("\n") + 1].splitlines()
            found = [json.loads(line[len(MARK) :]) for line in whole if line.startswith(MARK)]
            lines = {line["name"]: line for line in found}
            if "modules" in lines:
                break
            if ended:
                # What is asked next must not get the rest of this as its answer.
                self.stop()
                break
            time.sleep(0.2)
        return Checks(lines, out, text)

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            with self.log.open("ab") as file:
                self.process = subprocess.Popen(
                    self.command,
                    # ComfyUI makes folders in the working directory's place for some imports; none shall be in a
                    # checkout.
                    cwd=self.folder,
                    env=environment(),
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
        return self.process

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def driving(comfy: Comfy, pack: Path, folder: Path) -> Iterator[Driver]:
    """A :class:`Driver` that is stopped in any case."""
    driver = Driver(comfy, pack, folder)
    try:
        yield driver
    finally:
        driver.stop()
