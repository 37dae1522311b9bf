"""A Python environment for the run, of this Python's packages and of wheels from a folder; nothing is fetched."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

#: What ComfyUI imports on its way to the pack's nodes, but which only pictures in motion need: 35 MB as a wheel.
_AV = '''"""Stands in for PyAV, which was left out: importing ComfyUI works, and every use of it fails."""


class _Named(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class _Missing(metaclass=_Named):
    def __init__(self, *_args, **_kwargs):
        raise RuntimeError("PyAV is not installed here")


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Named(name, (_Missing,), {})
'''
_AV_MODULES = ("__init__", "container", "codec", "subtitles/__init__", "subtitles/stream", "video/__init__")
_AV_MODULES += ("video/reformatter",)


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


def has(python: Path, package: str) -> bool:
    """Whether a Python finds a package."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([str(python), "-c", code], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def stand_in_for_av(folder: Path) -> None:
    """Let ComfyUI start without PyAV in the environment of :func:`make`."""
    for name in _AV_MODULES:
        file = _site(folder) / "av" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_AV, encoding="utf-8")


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
