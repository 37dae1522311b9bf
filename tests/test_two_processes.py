"""Two runs over the same pictures: each result is made once, and what the other makes is waited for at the end."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from perfect import Perfect
from PIL import Image

from pgp_core.cli import main
from pgp_core.cli import upscale as command
from pgp_core.files.locks import locked

Taken = tuple[Path, AbstractContextManager[None]]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for i, name in enumerate("abc"):
        Image.new("RGB", (6, 4), (50 * i, 120, 140)).save(tmp_path / "in" / f"{name}.png")
    return tmp_path


@pytest.fixture
def taken(three: Path) -> Taken:
    """The first picture's result while another process makes it, and that process's hold on it."""
    target = three / "out" / "a.png"
    target.parent.mkdir()
    held = locked(target)
    held.__enter__()
    return target, held


def run(folder: Path, *options: str) -> int:
    return main(["upscale", str(folder / "in"), "-o", str(folder / "out"), "--scale", "1", "--json", *options])


def said(capture: pytest.CaptureFixture[str]) -> tuple[list[tuple[str, bool]], str]:
    captured = capture.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    return [(Path(r["input"]).name, r.get("skipped", False)) for r in rows], captured.err


def test_what_another_process_makes_comes_last_and_is_not_made_twice(
    three: Path, taken: Taken, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, held = taken

    def other_ends(_: torch.Tensor) -> None:
        if not target.exists():
            target.write_bytes(b"the other's")
            held.__exit__(None, None, None)

    monkeypatch.setattr(command, "_load", lambda *_: Perfect(other_ends))
    assert run(three) == 0
    rows, err = said(capsys)
    assert rows == [("b.png", False), ("c.png", False), ("a.png", True)]
    assert target.read_bytes() == b"the other's"
    assert f"a.png is being written by process {os.getpid()} on this machine" in err and "left for the end" in err
    assert "2 of 3 pictures done, 1 skipped" in err
    assert sorted(p.name for p in (three / "out").iterdir()) == ["a.png", "b.png", "c.png"]


def test_what_another_process_gave_up_is_made(
    three: Path, taken: Taken, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, held = taken
    given_up: list[int] = []

    def other_is_killed(_: torch.Tensor) -> None:
        if not given_up:
            given_up.append(1)
            held.__exit__(None, None, None)

    monkeypatch.setattr(command, "_load", lambda *_: Perfect(other_is_killed))
    assert run(three) == 0
    rows, err = said(capsys)
    assert rows == [("b.png", False), ("c.png", False), ("a.png", False)]
    assert "3 of 3 pictures done" in err
    with Image.open(target) as made:
        assert made.size == (6, 4)


def test_a_lone_picture_is_waited_for(
    three: Path, taken: Taken, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_load", lambda *_: Perfect())
    target, held = taken

    def ends(_seconds: float) -> None:
        target.write_bytes(b"the other's")
        held.__exit__(None, None, None)

    monkeypatch.setattr("pgp_core.files.locks.time.sleep", ends)
    source = str(three / "in" / "a.png")
    assert main(["upscale", source, "-o", str(target.parent), "--scale", "1", "--json"]) == 0
    rows, err = said(capsys)
    assert rows == [("a.png", True)]
    assert "a.png is being made by process" in err and "waiting for it" in err
    assert target.read_bytes() == b"the other's"


def test_what_appears_while_a_run_goes_on_is_not_overwritten(
    three: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = three / "out" / "c.png"
    monkeypatch.setattr(command, "_load", lambda *_: Perfect(lambda _: late.write_bytes(b"the other's")))
    assert run(three) == 0
    rows, err = said(capsys)
    assert rows == [("a.png", False), ("b.png", False), ("c.png", True)]
    assert late.read_bytes() == b"the other's" and "made by another process meanwhile" in err
    assert run(three, "--overwrite") == 0
    assert late.read_bytes() != b"the other's"
