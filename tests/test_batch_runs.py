"""Runs of ``upscale`` over several pictures: what one of them does never ends it, and everything is said."""

from __future__ import annotations

import base64
import errno
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pgp_core import upscale as whole_way
from pgp_core.cli import destination, main
from pgp_core.cli.destination import FORMATS
from pgp_core.errors import Cancelled
from pgp_core.images import writing

Capture = pytest.CaptureFixture[str]


def picture(path: Path, level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (level, 120, 140)).save(path)
    return path


def run(*args: Any) -> int:
    return main(["upscale", *map(str, args), "--scale", "1"])


def rows(capture: Capture) -> tuple[list[dict[str, Any]], str]:
    said = capture.readouterr()
    return [json.loads(line) for line in said.out.splitlines()], said.err


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [picture(tmp_path / "in" / f"{name}.png", 50 * i) for i, name in enumerate("abc")]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """``failing(error)``: the second picture that is restored raises it."""

    def fail(error: BaseException) -> None:
        restore, turn = whole_way.upscale, iter(range(9))

        def failing_restore(*args: Any, **kwargs: Any) -> Any:
            if next(turn) == 1:
                raise error
            return restore(*args, **kwargs)

        monkeypatch.setattr(whole_way, "upscale", failing_restore)

    return fail


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TypeError("odd thing\nmore"), "TypeError: odd thing"),
        (AssertionError(), "AssertionError"),
        (RecursionError("deep"), "RecursionError: deep"),
        (MemoryError(), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    ],
    ids=lambda p: p if isinstance(p, str) else "",
)
def test_whatever_one_picture_raises_is_its_error(
    error: Exception, words: str, three: list[Path], tmp_path: Path, failing: Any, capsys: Capture
) -> None:
    failing(error)
    assert run(*three, "-o", tmp_path / "out", "--json") == 1
    found, said = rows(capsys)
    assert [Path(r["input"]).name for r in found] == ["a.png", "b.png", "c.png"]
    assert [set(r) == {"input", "error"} for r in found] == [False, True, False]
    assert words in found[1]["error"] and "b.png" in found[1]["error"]
    lines = [line for line in said.splitlines() if "error" in line]
    assert len(lines) == 1 and "b.png" in lines[0] and words in lines[0]
    assert "2 of 3 pictures done, 1 failed" in said and "Traceback" not in said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


def test_debug_shows_where(three: list[Path], tmp_path: Path, failing: Any, capsys: Capture) -> None:
    failing(TypeError("odd thing"))
    assert main(["--debug", "upscale", *map(str, three), "-o", str(tmp_path / "out"), "--scale", "1"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "failing_restore" in said and "2 of 3 pictures done" in said


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Cancelled()])
def test_an_interrupted_run_says_how_far_it_came(
    stop: BaseException, three: list[Path], tmp_path: Path, failing: Any, capsys: Capture
) -> None:
    failing(stop)
    assert run(*three, "-o", tmp_path / "out") == 130
    assert "1 of 3 pictures done, 2 not begun or not finished" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_lone_picture_fails_in_one_line(tmp_path: Path, failing: Any, three: list[Path], capsys: Capture) -> None:
    (tmp_path / "b.png").write_bytes(b"")
    assert run(tmp_path / "b.png", "-o", tmp_path / "out", "--json") == 1
    (row,), said = rows(capsys)
    assert row["input"] == str(tmp_path / "b.png") and "empty" in row["error"]
    assert len(said.splitlines()) == 1 and "empty" in said
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_not_finite_are_not_written(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(whole_way, "upscale", lambda *a: torch.full((1, 3, 4, 6), float("nan")))
    assert run(three[0], "-o", tmp_path / "out") == 1
    assert "not finite" in capsys.readouterr().err and not list((tmp_path / "out").iterdir())


def test_a_disk_that_is_full(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """No later picture is restored only to be lost; where there is room again the run goes on."""
    full = [False]
    save, restored = Image.Image.save, []
    restore, trial = whole_way.upscale, Path.write_bytes

    def saving(*args: Any, **kwargs: Any) -> None:
        full[0] = len(restored) == 1
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*args, **kwargs)

    def trying(path: Path, data: bytes) -> int:
        if full[0] and path.name.endswith(".tmp"):
            full[0] = False
            raise OSError(errno.ENOSPC, "No space left on device")
        return trial(path, data)

    def counted(*args: Any) -> Any:
        restored.append(args)
        return restore(*args)

    monkeypatch.setattr(Image.Image, "save", saving)
    monkeypatch.setattr(Path, "write_bytes", trying)
    monkeypatch.setattr(whole_way, "upscale", counted)
    assert run(*three, "-o", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert said.count("the disk is full") == 2 and "1 of 3 pictures done, 2 failed" in said
    assert len(restored) == 2 and [p.name for p in (tmp_path / "out").iterdir()] == ["c.png"]


def test_a_file_that_grows_too_large(three: list[Path], tmp_path: Path, capsys: Capture) -> None:
    """A limit of the system in earnest."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(three[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, hard))
    try:
        assert run(*three, "-o", tmp_path / "out") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert "b.png" in said and "2 of 3 pictures done, 1 failed" in said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


# -- inputs ------------------------------------------------------------------------------------------------


def test_inputs_that_can_be_no_picture(tmp_path: Path, capsys: Capture) -> None:
    """Nothing is opened that would block; each is named once."""
    good = picture(tmp_path / "good.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "none").mkdir()
    wrong = {"pipe": "a pipe", "nowhere": "leads nowhere", "circle": "in a circle", "none": "no picture in the folder"}
    wrong |= {"gone.png": "no file or folder", "x" * 300: "name too long"}
    names = [tmp_path / name for name in wrong]
    assert run(*names[:3], good, *names[3:], "/dev/zero", "-o", tmp_path / "out", "--json") == 1
    found, said = rows(capsys)
    assert "error" not in found[-1]
    errors = {Path(r["input"]).name: r["error"] for r in found[:-1]}
    assert set(errors) == {*wrong, "zero"} and "device" in errors["zero"]
    for name, words in wrong.items():
        assert words in errors[name].lower()
    assert "1 of 8 pictures done, 7 failed" in said
    assert run(names[0], names[1], "-o", tmp_path / "other", "--json") == 1
    assert not (tmp_path / "other").exists()


def test_a_folder_that_cannot_be_listed(three: list[Path], tmp_path: Path, capsys: Capture) -> None:
    if not os.geteuid():
        pytest.skip("root may list every folder")
    (tmp_path / "closed").mkdir(mode=0)
    assert run(tmp_path / "closed", three[0], "-o", tmp_path / "out") == 1
    assert "closed cannot be opened: Permission denied" in capsys.readouterr().err


def test_what_is_named_twice_is_made_once(three: list[Path], tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert run(tmp_path / "in", three[0], tmp_path / "link" / "a.png", "-o", tmp_path / "out", "--json") == 0
    assert [Path(r["input"]).name for r in rows(capsys)[0]] == ["a.png", "b.png", "c.png"]


def test_names_that_are_no_text(tmp_path: Path, capsys: Capture) -> None:
    """JSON that any reader takes, from which the file is found again."""
    name = os.fsdecode(b"b\xff.png")
    folder = tmp_path / "in"
    picture(folder / "a.png")
    picture(folder / "b.png").rename(folder / name)
    (folder / os.fsdecode(b"c\xfe.png")).write_bytes(b"none")
    assert run(folder, "-o", tmp_path / "out", "--json") == 1
    found, _ = rows(capsys)
    assert found[1]["input"] == f"{folder}/b\\xff.png" and "\udcff" not in str(found)
    for key, where in (("input_base64", folder), ("output_base64", tmp_path / "out")):
        assert os.fsdecode(base64.b64decode(found[1][key])) == str(where / name)
    assert found[2]["input"].endswith("c\\xfe.png") and found[2]["error"]
    assert run(folder, "-o", tmp_path / "out", "--json") == 1
    assert [r.get("skipped", False) for r in rows(capsys)[0]] == [True, True, False]


# -- the output --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpeg", ".TIF", ".webp"])
def test_one_picture_into_one_file(suffix: str, tmp_path: Path, capsys: Capture) -> None:
    source, target = picture(tmp_path / "in" / "a.png"), tmp_path / "new" / f"result{suffix}"
    assert run(source, "-o", target, "--json") == 0
    (row,), _ = rows(capsys)
    assert row["output"] == str(target)
    with Image.open(target) as image:
        assert image.format == {".png": "PNG", ".jpeg": "JPEG", ".TIF": "TIFF", ".webp": "WEBP"}[suffix]
    assert [p.name for p in (tmp_path / "new").iterdir()] == [target.name]
    assert run(source, "-o", target, "--json") == 0
    assert rows(capsys)[0][0]["skipped"]
    other = picture(tmp_path / "in" / "b.png", 7)
    before = target.read_bytes()
    assert run(other, "-o", target) == 1
    assert "made of another picture" in capsys.readouterr().err and target.read_bytes() == before
    assert run(other, "-o", target, "--overwrite") == 0
    assert target.read_bytes() != before


def test_a_file_is_never_its_own_result(tmp_path: Path, capsys: Capture) -> None:
    source = picture(tmp_path / "a.png")
    before = source.read_bytes()
    for target in (source, tmp_path / "x" / ".." / "a.png"):
        (tmp_path / "x").mkdir(exist_ok=True)
        assert run(source, "-o", target, "--overwrite") == 1
        assert "overwritten by its own result" in capsys.readouterr().err
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "out", "words"),
    [
        (["b.png"], "r.png", "r.png is one file"),
        (["."], "r.png", "r.png is one file"),
        ([], "r.gif", "not .gif"),
        ([], "r.heic", "not .heic"),
        (["--format", "jpeg"], "r.png", "contradict"),
        (["--format", "png"], "r.tiff", "contradict"),
    ],
)
def test_a_file_that_cannot_be_meant_is_wrong_usage(
    more: list[str], out: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    with pytest.raises(SystemExit) as stop:
        run("a.png", *more, "-o", out)
    assert stop.value.code == 2 and words in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("out", ["there.png", "new.png/", "v1.2", "plain", "there.gif"])
def test_what_is_a_folder(out: str, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    for name in ("there.png", "there.gif"):
        (tmp_path / name).mkdir()
    assert run(source, "-o", f"{tmp_path}/{out}", "--format", "jpeg") == 0
    assert (tmp_path / out / "a.jpg").is_file()


def test_folders_that_cannot_take_results(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Said before anything is loaded, in one line."""
    (tmp_path / "file").write_text("of the user's")

    def nothing(*_: Any) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("pgp_core.cli.upscale._load", nothing)

    def error(out: Path | str) -> str:
        assert run(*three, "-o", out) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "file is a file: no folder" in error(tmp_path / "file")
    assert "file is a file: no folder" in error(tmp_path / "file" / "below")
    assert "cannot be made: File name too long" in error(tmp_path / ("x" * 300))
    assert "nothing can be written to the folder" in error("/proc/self")
    assert (tmp_path / "file").read_text() == "of the user's"


def test_beside_the_pictures_twice(tmp_path: Path, capsys: Capture) -> None:
    names = ["a.jpg", "a.png", "b.png"]
    for i, name in enumerate(names):
        picture(tmp_path / name, 60 * i)
    before = {name: (tmp_path / name).read_bytes() for name in names}
    assert run(tmp_path, "-o", tmp_path) == 0
    results = ["a.jpg_upscaled.png", "a_upscaled.png", "b_upscaled.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names, *results])
    for _ in range(2):
        times = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
        capsys.readouterr()
        assert run(*sorted(tmp_path.iterdir()), "-o", tmp_path, "--json") == 0
        found, said = rows(capsys)
        assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == times
        assert len(found) == 6 and all(r["skipped"] for r in found)
        assert [Path(r["input"]).name for r in found if r.get("is_result")] == results
        assert "not enlarged again" in said and "3 skipped that are results" in said
    assert run(tmp_path, "-o", tmp_path, "--overwrite") == 0
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names, *results])


def test_formats_are_the_writers() -> None:
    assert FORMATS == writing.FORMATS
    assert set(destination._WRITTEN) == {*FORMATS.values(), ".jpeg", ".tiff"}
