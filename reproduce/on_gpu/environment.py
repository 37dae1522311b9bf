"""A Python environment for the run, of this Python's packages and of wheels from a folder; nothing is fetched."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path


def make(folder: Path, wheels: Path | None) -> Path:
    """An environment that sees this Python's packages, with the wheels in front; its Python.

    Args:
        folder: where it goes.
        wheels: a folder with ``.whl`` files; all of them are installed, without what they need.
    """
    import venv

    # Without pip: many Pythons lack what brings it. This one's own installs.
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    site = _site(folder)
    # A virtual environment inside another sees the packages of neither's parent's child: they are named instead.
    here = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages") and Path(p).is_dir()]
    (site / "outer.pth").write_text("".join(f"{p}\n" for p in here), encoding="utf-8")
    found = sorted(wheels.glob("*.whl")) if wheels else []
    if found:
        options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--no-input"]
        options += ["--disable-pip-version-check", "--target", str(site)]
        command = [sys.executable, "-m", "pip", "install", *options, *map(str, found)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the wheels in {wheels} cannot be installed:\n{done.stderr.strip()[-2000:]}")
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _site(folder: Path) -> Path:
    lib = folder / ("Lib" if os.name == "nt" else f"lib/python{sys.version_info[0]}.{sys.version_info[1]}")
    return lib / "site-packages"


def comfyui(given: Path, folder: Path) -> Path:
    """ComfyUI's folder; one in a zip file is unpacked first."""
    if given.is_file():
        with zipfile.ZipFile(given) as packed:
            packed.extractall(folder)
        given = folder
    # The zip may hold its folder.
    for place in (given, *sorted(p for p in given.glob("*") if p.is_dir())):
        if (place / "main.py").is_file() and (place / "folder_paths.py").is_file():
            return place
    raise SystemExit(f"{given} holds no ComfyUI (no main.py beside folder_paths.py)")
