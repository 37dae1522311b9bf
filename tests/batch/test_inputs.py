"""Inputs that can be no picture, or are named in odd ways."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from batch_runs import Capture, picture, rows, run

from pgp_core.cli import main


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


def test_phases_of_the_pictures_that_can_be_read(three: list[Path], tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("matplotlib")
    three[1].write_text("no picture")
    out = tmp_path / "phase.png"
    assert main(["plot", "phase", *map(str, three), str(tmp_path / "gone.png"), "-o", str(out), "--width", "600"]) == 1
    said = capsys.readouterr().err
    assert said.count("error: ") == 2 and "b.png" in said and "gone.png" in said
    assert "2 of 4 pictures failed and were left out" in said and out.is_file()
    out.unlink()
    for wrong, words in (([three[1]], "b.png"), ([three[1], three[1].with_name("d.png")], "none of the 2 pictures")):
        assert main(["plot", "phase", *map(str, wrong), "-o", str(out)]) == 1
        assert words in capsys.readouterr().err.splitlines()[-1] and not out.exists()
