"""``reproduce/on_gpu`` where there is no GPU: every part, small, and what becomes of the others when one fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, str(ROOT / "reproduce" / "on_gpu"), "--tiny"]
#: A ComfyUI is started only where that is asked for: its own tests start it often enough.
WITH_COMFYUI = os.environ.get("PGP_ON_GPU_COMFYUI")


@pytest.fixture(scope="module")
def on_gpu() -> Iterator[Any]:
    """``on_gpu("supervise")``: one of its modules."""
    sys.path.insert(0, str(ROOT / "reproduce"))
    try:
        yield lambda name: import_module(f"on_gpu.{name}")
    finally:
        sys.path.remove(str(ROOT / "reproduce"))


def _read(file: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return data


# -- all parts -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of every part, small and on the CPU; it asks for nothing, though nobody could answer."""
    folder = tmp_path_factory.mktemp("on_gpu")
    command = [*COMMAND, "-o", str(folder / "out"), "--device", "cpu"]
    command += ["--comfyui", WITH_COMFYUI] if WITH_COMFYUI else []
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=550)
    log = (folder / "out" / "log.txt").read_text(encoding="utf-8")
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-2000:]}\n{log[-3000:]}"
    # Files of several GB do not stay.
    assert [p.name for p in folder.iterdir()] == ["out"]
    return folder / "out"


def test_each_part_leaves_its_json_and_the_summary_says_so(tried: Path) -> None:
    names = {"1-tests.json", "2-unet.json", "3-one-step.json", "4-large.json", "summary.json", "log.txt"}
    assert {p.name for p in tried.iterdir()} == names
    summary = _read(tried / "summary.json")
    assert (summary["format"], summary["ok"], summary["device"], summary["tiny"]) == (
        "pgp-diffsr/on-gpu", True, "cpu", True,
    )  # fmt: skip
    assert summary["machine"]["torch"] == torch.__version__
    for file in sorted(names - {"summary.json", "log.txt"}):
        data = _read(tried / file)
        said = summary["parts"][data["name"]]
        assert (data["state"], data["now"], said["state"]) == ("done", [], "done"), file
        assert said["failed"] == [], file
        assert {n for n, row in data["rows"].items() if row["state"] == "ok"} == set(said["ok"]), file
        assert all(row["took"] >= 0 for row in data["rows"].values()), file
        # Nothing that was tried on a CPU can be taken for a figure of a GPU.
        assert (data["device"], data["tiny"]) == ("cpu", True), file


def test_what_cuda_changes(tried: Path) -> None:
    rows = _read(tried / "1-tests.json")["rows"]
    exhausted = rows["memory runs out: tiles become smaller"]
    assert exhausted["memory"] == "pretended"
    assert "memory ran out" in exhausted["said"][0]
    assert "overflow in float16" in rows["numbers that overflow fp16 are computed in float32"]["said"][0]
    assert rows["nano, one step, float32, against float32 on the CPU"]["max"] == 0
    assert rows["tests with a device: test_phase.py"]["passed"] > 0
    if not WITH_COMFYUI:
        assert rows["tests of ComfyUI"] == {"state": "skipped", "reason": "no --comfyui", "took": 0}


def test_one_step_of_the_unet(tried: Path) -> None:
    rows = _read(tried / "2-unet.json")["rows"]
    table = rows["bfloat16"]
    assert table["dtype"] == "bfloat16"
    assert [r["name"] for r in table["rows"]] == ["full", "faithdiff", "coarse", "fine", "fine+peam"]
    for row in table["rows"]:
        assert row["ratio_to_full"] == pytest.approx(row["seconds_per_step"] / table["rows"][0]["seconds_per_step"])
    # On a CPU nothing is compiled, and the row says that.
    compiled = rows["bfloat16, compiled: fine+peam"]
    assert compiled["compiled"] is False
    assert compiled["ratio_to_the_same_uncompiled"] > 0


def test_one_step_from_picture_to_picture(tried: Path) -> None:
    rows = _read(tried / "3-one-step.json")["rows"]
    for family in ("nano, one step", "PGP-DiffSR (SDXL), one step"):
        assert rows[f"{family}, float32: made"]["params"] == sum(rows[f"{family}, float32: made"]["params_of"].values())
        small, large = (rows[f"{family}, float32: {side}"] for side in (64, 128))
        assert (small["size"], large["size"]) == ([64, 64], [128, 128])
        assert 0 < small["seconds_min"] <= small["seconds"] <= small["seconds_max"]
        # Four times the pixels; attention, and a frame around the picture, grow otherwise.
        assert 2 * small["macs"] < large["macs"] < 16 * small["macs"]


def test_large_pictures(tried: Path) -> None:
    rows = _read(tried / "4-large.json")["rows"]
    whole = rows["nano, 192, no tiles"]
    for phase in ("tile", "canvas"):
        tiles = rows[f"nano, 192, tiles of 96, phase of the {phase}"]
        against = whole["tiles against this"][phase]
        assert tiles["size"] == whole["size"] == [192, 192]
        assert 0 < against["rms"] <= 2
        assert against["seam over this one's"] == pytest.approx(tiles["seam"] / whole["seam"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_does_not_begin(tmp_path: Path) -> None:
    command = [*COMMAND, "-o", str(tmp_path / "out"), "--parts", "4"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "PyTorch sees no GPU here: give --device cpu --tiny to try the script\n"
    assert not (tmp_path / "out" / "4-large.json").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--parts", "9"], "--parts takes some of 1, 2, 3, 4"),
        (["--limit", "2:60"], "as 2=60"),
        (["--comfyui", "nowhere"], "there is no nowhere"),
    ],
)
def test_wrong_usage_is_one_line(options: list[str], says: str, tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "-o", str(tmp_path / "out"), *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]


# -- parts that fail -----------------------------------------------------------------------------------------

#: A part's process: two rows, of which the second does something else in each part.
_PART = """
import os, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from on_gpu.results import FailedError, Results, SkippedError

def second():
    what = sys.argv[3]
    if what == "raises":
        raise ValueError("it broke")
    if what == "is wrong":
        raise FailedError("it is off", {"off": 3})
    if what == "is not here":
        raise SkippedError("no such card")
    if what == "dies":
        os.abort()
    if what == "hangs":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(sys.argv[2] + ".child").write_text(str(child.pid))
        time.sleep(600)
    return {"figure": 2}

results = Results(Path(sys.argv[2]), {"part": what} if (what := sys.argv[3]) else {})
results.row("first", lambda: {"figure": 1})
results.row("second", second)
results.row("third", lambda: {"figure": 3})
sys.exit(results.finish() > 0)
"""

WHAT = ("raises", "is wrong", "is not here", "dies", "hangs", "is well")
#: What the process of a part that hangs gets; the others take far less, and are not held to it.
SHORT, LONG = 5.0, 120.0


@pytest.fixture(scope="module")
def supervised(on_gpu: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Made-up parts, one after the other, and the summary."""
    out = tmp_path_factory.mktemp("parts")
    script = out / "part.py"
    script.write_text(_PART, encoding="utf-8")
    part = on_gpu("supervise").Part
    parts = [part(i, what, SHORT if what == "hangs" else LONG) for i, what in enumerate(WHAT)]

    def command(part: Any) -> list[str]:
        return [sys.executable, str(script), str(ROOT / "reproduce"), str(part.file(out)), part.name]

    return out, on_gpu("supervise").supervise(parts, command, out, 600)


@pytest.mark.parametrize("what", WHAT)
def test_what_one_part_does_no_other_suffers_from(what: str, supervised: tuple[Path, dict[str, Any]]) -> None:
    out, summary = supervised
    data, said = _read(out / f"{WHAT.index(what)}-{what}.json"), summary["parts"][what]
    assert data["rows"]["first"]["figure"] == 1
    state, second = {
        "raises": ("failed", {"state": "failed", "error": "ValueError: it broke"}),
        "is wrong": ("failed", {"state": "failed", "error": "it is off", "off": 3}),
        "is not here": ("done", {"state": "skipped", "reason": "no such card"}),
        "dies": ("failed", None),
        "hangs": ("timed out", None),
        "is well": ("done", {"state": "ok", "figure": 2}),
    }[what]
    assert (data["state"], said["state"]) == (state, state)
    if second is None:
        assert "second" not in data["rows"]
        assert said["now"] == data["now"] == ["second"]
        assert said["ok"] == ["first"]
    else:
        assert second.items() <= data["rows"]["second"].items()
        assert data["rows"]["third"]["figure"] == 3


def test_the_summary_tells_all(supervised: tuple[Path, dict[str, Any]]) -> None:
    out, summary = supervised
    assert _read(out / "summary.json") == summary
    assert summary["ok"] is False
    assert list(summary["parts"]) == list(WHAT)


def test_what_a_part_has_started_ends_with_it(supervised: tuple[Path, dict[str, Any]]) -> None:
    child = int((supervised[0] / f"{WHAT.index('hangs')}-hangs.json.child").read_text())
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            # An ended process stays listed until its parent asks.
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
            os.kill(child, 0)
        except (OSError, IndexError):
            return
        time.sleep(0.05)
    pytest.fail("it runs on")


def test_parts_for_which_no_time_is_left_are_said(on_gpu: Any, tmp_path: Path) -> None:
    former = tmp_path / "1-a.json"
    former.write_text('{"state": "done", "rows": {}}', encoding="utf-8")
    summary = on_gpu("supervise").supervise([on_gpu("supervise").Part(1, "a", 60)], lambda _: ["false"], tmp_path, 0)
    assert summary["ok"] is False
    assert summary["parts"]["a"]["state"] == "not run"
    # A former run's results are not taken for this one's.
    assert not former.exists()


# -- what is carried -----------------------------------------------------------------------------------------


def test_comfyui_travels_as_a_zip_without_what_does_not_run(on_gpu: Any, tmp_path: Path) -> None:
    comfyui = tmp_path / "ComfyUI"
    kept = {"main.py", "folder_paths.py", "comfy/ops.py", "comfy/models/x.py"}
    left = {
        "blueprints/b.json",
        ".git/HEAD",
        ".venv/bin/python",
        "models/vae/v.pt",
        "comfy/__pycache__/o.pyc",
        "tests/t",
    }
    for name in kept | left:
        (comfyui / name).parent.mkdir(parents=True, exist_ok=True)
        (comfyui / name).write_text(name)
    on_gpu("pack").pack_comfyui(comfyui, tmp_path / "c.zip")
    with zipfile.ZipFile(tmp_path / "c.zip") as packed:
        assert set(packed.namelist()) == kept
    found = on_gpu("environment").comfyui(tmp_path / "c.zip", tmp_path / "there")
    assert (found / "comfy" / "ops.py").read_text() == "comfy/ops.py"
    with pytest.raises(SystemExit, match="holds no ComfyUI"):
        on_gpu("environment").comfyui(comfyui / "comfy", tmp_path / "nowhere")


def test_what_comfyui_pins_is_what_is_carried(on_gpu: Any, tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("comfy-aimdo==0.4.13\ntorch\nSQLAlchemy>=2.0.0\n#blake3==1\npydantic~=2.0\n")
    assert on_gpu("pack").versions(requirements) == {"comfy-aimdo": "==0.4.13"}


def test_the_environment_has_this_python_s_packages_and_the_wheels(on_gpu: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "carried-1.0-py3-none-any.whl", "w") as wheel:
        about = "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n"
        wheel.writestr("carried.py", "figure = 7\n")
        wheel.writestr("carried-1.0.dist-info/METADATA", about)
        wheel.writestr("carried-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("carried-1.0.dist-info/RECORD", "")
    on_gpu("pack").pack_tighter(tmp_path / "carried-1.0-py3-none-any.whl")
    python = on_gpu("environment").make(tmp_path / "python", tmp_path)
    code = "import carried, safetensors; print(carried.figure)"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    assert done.stdout == "7\n", done.stderr


def test_an_environment_without_good_wheels_is_refused(on_gpu: Any, tmp_path: Path) -> None:
    (tmp_path / "broken-1.0-py3-none-any.whl").write_bytes(b"no zip file")
    with pytest.raises(SystemExit, match="cannot be installed"):
        on_gpu("environment").make(tmp_path / "python", tmp_path)
