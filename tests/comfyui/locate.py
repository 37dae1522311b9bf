"""Where ComfyUI is on this machine, and with which Python it runs."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

PACK = Path(__file__).absolute().parents[2]
WORKFLOWS = sorted((PACK / "workflows").glob("*.json"))


def needs_files(workflow: Path) -> bool:
    """Whether a workflow runs only with models that the user has: nano is the one that comes with the pack."""
    nodes = json.loads(workflow.read_text(encoding="utf-8"))["nodes"]
    return all(n["type"] != "PGPDiffSRLoadNano" for n in nodes)


#: Those with tests of their own: a video, a picture too large for a test, models of which nothing is known.
OTHER_WORKFLOWS = [w for w in WORKFLOWS if w.stem in ("upscale-video-nano", "upscale-4k-nano", "upscale-any-sdxl")]
NANO_WORKFLOWS = [w for w in WORKFLOWS if not needs_files(w) and w not in OTHER_WORKFLOWS]
#: Those that restore once, as the command line does.
UPSCALE_WORKFLOWS = [w for w in NANO_WORKFLOWS if w.stem.startswith("upscale-")]
FULL_SIZE_WORKFLOWS = [w for w in WORKFLOWS if needs_files(w) and w not in OTHER_WORKFLOWS]

HOW_TO = (
    "set COMFYUI_PATH to a ComfyUI 0.33 checkout (and COMFYUI_PYTHON to its Python, where that is neither in its "
    ".venv nor this one), or put the pack in ComfyUI's custom_nodes"
)


class NotFound(Exception):
    """There is no ComfyUI; the message says how to set one up."""


@dataclass(frozen=True)
class Comfy:
    """A ComfyUI checkout and the Python that has its requirements."""

    path: Path
    python: Path

    @property
    def version(self) -> str:
        """From ``comfyui_version.py``, without importing it."""
        text = (self.path / "comfyui_version.py").read_text(encoding="utf-8")
        found = re.search(r'__version__ = "([^"]+)"', text)
        return found[1] if found else "unknown"


def locate(pack: Path = PACK, environ: dict[str, str] | None = None) -> Comfy:
    """ComfyUI at ``$COMFYUI_PATH``, else the one that encloses the pack, else ``~/comfy/ComfyUI``.

    Raises:
        NotFound: if there is none.
        ValueError: if a variable is set, but wrong; that is a mistake, no reason to skip.
    """
    environ = dict(os.environ) if environ is None else environ
    path = _checkout(pack, environ)
    return Comfy(path, _python(path, environ))


def _checkout(pack: Path, environ: dict[str, str]) -> Path:
    if environ.get("COMFYUI_PATH"):
        path = Path(environ["COMFYUI_PATH"]).expanduser()
        if not _is_comfyui(path):
            raise ValueError(f"COMFYUI_PATH is {path}, where no ComfyUI is (no main.py beside folder_paths.py)")
        return path.absolute()
    # A pack that is linked into custom_nodes is enclosed by where the link stands.
    candidates = [p.parents[1] for p in (pack, pack.resolve()) if p.parent.name == "custom_nodes"]
    candidates.append(Path.home() / "comfy" / "ComfyUI")
    for path in candidates:
        if _is_comfyui(path):
            return path.absolute()
    raise NotFound(f"no ComfyUI found: {HOW_TO}")


def _is_comfyui(path: Path) -> bool:
    return (path / "main.py").is_file() and (path / "folder_paths.py").is_file()


def _python(comfy: Path, environ: dict[str, str]) -> Path:
    if environ.get("COMFYUI_PYTHON"):
        path = Path(environ["COMFYUI_PYTHON"]).expanduser()
        if not path.is_file():
            raise ValueError(f"COMFYUI_PYTHON is {path}, which is no file")
        return path.absolute()
    for folder in (".venv", "venv"):
        for python in ("bin/python", "Scripts/python.exe"):
            if (comfy / folder / python).is_file():
                # Not resolved: a virtual environment is known by the path of its link.
                return comfy / folder / python
    return Path(sys.executable)
