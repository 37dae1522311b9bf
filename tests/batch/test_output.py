"""Where results go: a folder, one file, beside the pictures, or nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from batch_runs import Capture, picture, rows, run
from PIL import Image

from pgp_core.cli import destination
from pgp_core.cli.destination import FORMATS
from pgp_core.images import writing


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
