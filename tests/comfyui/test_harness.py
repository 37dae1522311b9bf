"""The harness itself: finding ComfyUI, hiding packages, copying the pack. Needs no ComfyUI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .isolated import HIDDEN
from .locate import NotFound, locate
from .packed import copy_pack


def _checkout(path: Path, python: str = "") -> Path:
    path.mkdir(parents=True)
    (path / "main.py").touch()
    (path / "folder_paths.py").touch()
    (path / "comfyui_version.py").write_text('# written by a tool\n__version__ = "0.33.0"\n', encoding="utf-8")
    if python:
        (path / python).parent.mkdir(parents=True)
        (path / python).touch()
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    return tmp_path / "home"


def test_the_variable_goes_first(home: Path, tmp_path: Path) -> None:
    pack = _checkout(tmp_path / "around") / "custom_nodes" / "pack"
    _checkout(home / "comfy" / "ComfyUI")
    named = _checkout(tmp_path / "named")
    assert locate(pack, {"COMFYUI_PATH": str(named)}).path == named
    assert locate(pack, {}).path == tmp_path / "around"
    assert locate(tmp_path / "pack", {}).path == home / "comfy" / "ComfyUI"


def test_a_pack_that_is_linked_into_custom_nodes(home: Path, tmp_path: Path) -> None:
    assert not (home / "comfy").exists()
    nodes = _checkout(tmp_path / "around") / "custom_nodes"
    nodes.mkdir()
    (tmp_path / "pack").mkdir()
    try:
        (nodes / "pack").symlink_to(tmp_path / "pack", target_is_directory=True)
    except OSError:
        pytest.skip("this account may not make links")
    assert locate(nodes / "pack", {}).path == tmp_path / "around"


@pytest.mark.parametrize("python", [".venv/bin/python", "venv/bin/python", "venv/Scripts/python.exe"])
def test_its_own_python_is_found(python: str, home: Path) -> None:
    found = locate(home, {"COMFYUI_PATH": str(_checkout(home / "c", python))})
    assert found.python == home / "c" / python
    assert found.version == "0.33.0"


def test_other_pythons(home: Path) -> None:
    variables = {"COMFYUI_PATH": str(_checkout(home / "c", ".venv/bin/python"))}
    assert locate(home, {**variables, "COMFYUI_PYTHON": sys.executable}).python == Path(sys.executable)
    assert locate(home, {"COMFYUI_PATH": str(_checkout(home / "d"))}).python == Path(sys.executable)


def test_no_comfyui_says_how_to_set_one_up(home: Path) -> None:
    with pytest.raises(NotFound, match="COMFYUI_PATH"):
        locate(home / "pack", {})


@pytest.mark.parametrize("variable", ["COMFYUI_PATH", "COMFYUI_PYTHON"])
def test_a_wrong_variable_is_an_error_and_no_reason_to_skip(variable: str, home: Path) -> None:
    variables = {"COMFYUI_PATH": str(_checkout(home / "c")), variable: str(home / "nowhere")}
    with pytest.raises(ValueError, match=variable):
        locate(home, variables)


def _isolated(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script, encoding="utf-8")
    launcher = Path(__file__).with_name("isolated.py")
    command = [sys.executable, str(launcher), str(folder / "script.py"), "argument"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_packages_look_as_if_they_were_not_installed(name: str, tmp_path: Path) -> None:
    done = _isolated(
        f"import importlib.util\nassert importlib.util.find_spec({name!r}) is None\nimport {name}", tmp_path
    )
    assert f"ModuleNotFoundError: No module named '{name}'" in done.stderr


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("/home/me/custom_nodes/pack.nodes.upscale", True),
        ("pack.pgp_core.conditioning.prompts", True),
        ("pgp_core.unet", True),
        ("nodes", False),
        ("comfy.text_encoders.llama", False),
    ],
)
def test_transformers_is_missing_for_the_pack_alone(name: str, missing: bool, tmp_path: Path) -> None:
    (tmp_path / "transformers.py").write_text("", encoding="utf-8")
    done = _isolated(
        "import transformers\n"
        f"there = {{'__name__': {name!r}}}\n"
        "try:\n    exec('from transformers import models', there)\n"
        "except ImportError as e:\n    print(type(e).__name__)\n",
        tmp_path,
    )
    assert done.stdout.strip() == ("ModuleNotFoundError" if missing else "ImportError"), done.stderr


def test_scripts_run_as_usual_but_reach_this_machine_only(tmp_path: Path) -> None:
    # 192.0.2.0/24 is reserved for documentation: nobody would answer there.
    script = """
import pathlib, socket, sys
assert __name__ == "__main__" and sys.argv[1:] == ["argument"]
assert pathlib.Path(sys.path[0]).resolve() == pathlib.Path(__file__).resolve().parent
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as e:
    assert "refused in tests" in str(e), e
    print("done")
"""
    done = _isolated(script, tmp_path)
    assert done.stdout.strip() == "done", done.stderr


def test_the_copy_has_what_people_get(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    for file in ("__init__.py", "nodes/a.py", "nodes/__pycache__/a.pyc", "tests/t.py", ".git/config", "tests.py"):
        (pack / file).parent.mkdir(parents=True, exist_ok=True)
        (pack / file).touch()
    (pack / ".comfyignore").write_text("# not for users\ntests/\n", encoding="utf-8")
    copy = copy_pack(pack, tmp_path / "custom_nodes")
    assert copy.name != pack.name
    files = sorted(p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file())
    assert files == ["__init__.py", "nodes/a.py", "tests.py"]
