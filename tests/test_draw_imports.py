"""The drawing of imports, on packages of which the counts are plain to see."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

SCRIPT = Path(__file__).parents[1] / "reproduce" / "draw_imports.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def package(folder: Path, files: dict[str, str]) -> Path:
    for name, text in {"__init__.py": "", **files}.items():
        file = folder / "pgp_core" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder / "pgp_core"


def test_rooms_floors_and_arrows(script: dict[str, Any], tmp_path: Path) -> None:
    files = {
        "errors.py": "import torch\n",
        "files/__init__.py": "from ..errors import PGPError\n",
        "files/weights.py": "from . import names\nfrom .names import x\n",
        "unet/__init__.py": "",
        "unet/deep/__init__.py": "",
        "unet/deep/plan.py": "def f():\n    from ...files.weights import y\n    from ..other import z\n",
        "cli.py": "import pgp_core.unet.deep\nfrom pgp_core import errors\nfrom . import files\n",
    }
    d = script["drawing"](package(tmp_path, files))
    assert d.floors == (("errors",), ("files",), ("unet",), ("cli",))
    assert d.arrows == {
        ("files", "errors"),
        ("unet", "files"),
        ("cli", "unet"),
        ("cli", "errors"),
        ("cli", "files"),
    }
    assert d.counts() == "4 rooms, 4 floors, 5 arrows, 0 going up"


def test_what_goes_up_is_counted(script: dict[str, Any], tmp_path: Path) -> None:
    """a, b and c import each other in a circle of three arrows: one of them must go up."""
    files = {"a.py": "from . import b, low", "b.py": "from . import c", "c.py": "from .a import x", "low.py": ""}
    d = script["drawing"](package(tmp_path, files))
    assert len(d.arrows) == 4 and len(d.up) == 1
    assert d.up < {("a", "b"), ("b", "c"), ("c", "a")}


def test_a_large_knot_ends_too(script: dict[str, Any]) -> None:
    rooms = {f"r{i}" for i in range(12)}
    arrows = {(a, b) for a in rooms for b in rooms if a != b}
    left = arrows - script["arrows_up"](rooms, arrows)
    below = script["_reach"](rooms, left)
    assert not any(r in below[r] for r in rooms)


def test_the_drawing_is_an_svg_with_every_room(script: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    package(tmp_path / "repo", {"a.py": "from . import b", "b.py": ""})
    out = tmp_path / "out.svg"
    assert script["main"](["--repo", str(tmp_path / "repo"), "-o", str(out), "--title", "A & B"]) == 0
    root = ElementTree.parse(out).getroot()
    texts = {t.text for t in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a", "b"} <= texts and any("2 rooms" in str(t) for t in texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) == 1
