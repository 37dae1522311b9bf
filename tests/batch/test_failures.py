"""Whatever one picture does, the run goes on, and everything is said."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batch_runs import Capture, picture, rows, run
from PIL import Image

from pgp_core.cli import main
from pgp_core.errors import Cancelled
from pgp_core.restorers import upscale as whole_way


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


def test_what_appears_meanwhile_is_not_made_again(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out, restore = tmp_path / "out", whole_way.upscale

    def restored(*args: Any) -> Any:
        picture(out / "b.png")
        return restore(*args)

    monkeypatch.setattr(whole_way, "upscale", restored)
    assert run(*three, "-o", out, "--json") == 0
    found, said = rows(capsys)
    assert [r.get("skipped", False) for r in found] == [False, True, False]
    assert "b.png has been made by another process" in said and "2 of 3 pictures done, 1 skipped" in said
