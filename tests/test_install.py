"""The installed package: what it puts on ``sys.path``, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from imported import imported_by_nodes, reached_by_nodes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def _fresh_interpreter(code: str, folder: Path) -> str:
    """Run code in a new Python whose working directory is elsewhere; its output."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_packs_root_is_not_on_sys_path(tmp_path: Path) -> None:
    paths = _fresh_interpreter("import pgp_core, sys; print('\\n'.join(sys.path))", tmp_path).splitlines()
    assert ROOT not in [Path(p or ".").resolve() for p in paths if p]


def test_import_nodes_fails(tmp_path: Path) -> None:
    code = """
try:
    import nodes
except ModuleNotFoundError:
    print("none")
else:
    print(nodes.__path__)
"""
    assert _fresh_interpreter(code, tmp_path).strip() == "none"


def test_pytest_itself_keeps_the_root_off_sys_path() -> None:
    assert ROOT not in [Path(p or ".").resolve() for p in sys.path]


def test_the_package_under_test_is_this_repository_s() -> None:
    import pgp_core

    assert Path(pgp_core.__file__).resolve() == ROOT / "pgp_core" / "__init__.py"


def test_what_nodes_use_imports_without_diffusers_and_peft(tmp_path: Path) -> None:
    code = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("diffusers", "peft", "accelerate", "transformers"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
import importlib
for name in NAMES:
    importlib.import_module("pgp_core." + name)
print("imported")
"""
    names = imported_by_nodes()
    assert {"guidance.module", "unet.plan", "images.canvas"} <= set(names)
    assert _fresh_interpreter(f"NAMES = {names!r}\n{code}", tmp_path).strip() == "imported"


def test_what_nodes_lead_to_names_nothing_that_comfyui_lacks() -> None:
    """Not in a function either, which no import shows."""
    files = reached_by_nodes()
    assert {"nodes/upscale.py", "pgp_core/guidance/module.py", "pgp_core/unet/plan.py"} <= files.keys()
    others = {"diffusers", "transformers", "peft", "accelerate"}
    assert not {name: others & named for name, named in files.items() if others & named}


def test_the_project_needs_what_requirements_txt_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dependencies"] == (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
