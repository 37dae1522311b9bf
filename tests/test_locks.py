"""Two processes that would write the same; temporary files of those that were killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgp_core.errors import PGPError
from pgp_core.files import leftovers
from pgp_core.files.atomic import replacing
from pgp_core.files.locks import BusyError, lock_file, locked
from pgp_core.images.finding import find_pictures, known_extensions
from pgp_core.training.samples.scanning import scan

HOLD = """import sys, time; from pgp_core.files.locks import locked
with locked(sys.argv[1]): print(1, flush=True); time.sleep(60)"""
WRITE = """import sys, time; from pgp_core.files.atomic import replacing
with replacing(sys.argv[1]) as t: t.write_bytes(b"half"); print(1, flush=True); time.sleep(60)"""


@contextmanager
def running(code: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, once it is in the middle of what it does."""
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(autouse=True)
def look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are otherwise looked at every ten minutes."""
    monkeypatch.setattr(leftovers, "_AGAIN", 0.0)


def test_the_other_process_is_named_and_what_it_held_is_free_when_it_is_killed(tmp_path: Path) -> None:
    target = tmp_path / "new" / "model.safetensors"
    with running(HOLD, target) as other:
        with pytest.raises(BusyError) as error, locked(target, "wait"):
            pass
        text = str(error.value)
        assert text.startswith(f"model.safetensors is being written by process {other.pid} on this machine since 20")
        assert text.endswith(": wait") and "\n" not in text
        # Another name in the same folder is free.
        with locked(tmp_path / "new" / "other"):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert lock_file(target).exists(), "a killed process leaves the file, but not the lock"
        with locked(target):
            pass
    assert not (tmp_path / "new").exists() or list((tmp_path / "new").iterdir()) == []


def test_no_lock_stays_and_folders_that_were_made_for_it_go(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b" / "c.png"):
        assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == [".c.png.pgp-lock"]
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "run", folder=True):
        (tmp_path / "run" / "result").write_text("x")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["result"]
    with pytest.raises(KeyError), locked(tmp_path / "a" / "x"):
        raise KeyError
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / ("ü" * 127)):
        pass


def test_whoever_waits_is_told_once_and_gets_it(tmp_path: Path) -> None:
    told: list[str] = []
    with running(HOLD, tmp_path / "x") as other:

        def wait(owner: str) -> None:
            told.append(owner)
            other.kill()

        with locked(tmp_path / "x", wait=wait):
            assert len(told) == 1 and str(other.pid) in told[0]


def test_a_lock_within_one_process_holds_too(tmp_path: Path) -> None:
    """ComfyUI's queue and its server are threads of one process."""
    with locked(tmp_path / "x"), pytest.raises(BusyError, match=f"process {os.getpid()}"), locked(tmp_path / "x"):
        pass


def test_where_no_lock_can_be_made_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    with locked(tmp_path / "file" / "x"):
        pass
    import fcntl

    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locked(tmp_path / "x"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_killed_writer_leaves_nothing_that_is_a_picture_or_a_model_and_the_next_run_removes_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "good.png").write_bytes(b"good")
    with running(WRITE, tmp_path / "x.png") as other:
        (left,) = [p for p in tmp_path.iterdir() if p.name != "good.png"]
        # A writer that lives keeps its file.
        with replacing(tmp_path / "y.json") as temporary:
            temporary.write_text("{}")
        assert left.exists()
        other.kill()
        other.wait()
    assert left.read_bytes() == b"half"
    assert left.suffix not in known_extensions() | {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".sft", ".json"}
    assert find_pictures([tmp_path]) == [tmp_path / "good.png"]
    with replacing(tmp_path / "y.json") as temporary:
        temporary.write_text("{}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.png", "y.json"]


def test_files_of_other_machines_stay_until_they_are_old(tmp_path: Path) -> None:
    name = leftovers.temporary_name()
    ours = name.split("-")[1]
    theirs = tmp_path / name.replace(ours, "0" * 8 if ours != "0" * 8 else "1" * 8)
    theirs.write_text("theirs")
    mine = tmp_path / name
    mine.write_text("this process lives")
    reused = tmp_path / name.replace(name.split("-")[3], "7")
    reused.write_text("the number was another process's before")
    alike = tmp_path / ".pgp-notes.tmp"
    alike.write_text("somebody's own")
    leftovers.sweep(tmp_path)
    assert theirs.exists() and mine.exists() and alike.exists() and not reused.exists()
    past = time.time() - 30 * 24 * 3600
    for path in (theirs, mine, alike):
        os.utime(path, (past, past))
    # What safetensors' own writer leaves, and what another program calls so.
    library, other = tmp_path / ".tmpA1b2C3", tmp_path / ".tmpZ9y8X7"
    library.write_bytes((80).to_bytes(8, "little") + b'{"a":{"dty')
    other.write_text("some other program's")
    for path in (library, other):
        os.utime(path, (past, past))
    leftovers.sweep(tmp_path)
    assert not theirs.exists() and mine.exists() and alike.exists()
    assert not library.exists() and other.exists()


def test_what_earlier_releases_left_is_no_picture(tmp_path: Path) -> None:
    old = tmp_path / ".0123456789ab.tmp.png"
    old.write_bytes(b"half a picture")
    with pytest.raises(PGPError, match="no picture"):
        find_pictures([tmp_path])
    with pytest.raises(PGPError, match="no picture"):
        scan(tmp_path, 16)


def test_a_lock_s_file_that_is_nobody_s_goes_with_the_next_result(tmp_path: Path) -> None:
    lock_file(tmp_path / "gone.png").write_text("{}")
    with locked(tmp_path / "held.png"), replacing(tmp_path / "x") as temporary:
        temporary.write_text("x")
        assert sorted(p.name for p in tmp_path.iterdir() if p != temporary) == [".held.png.pgp-lock"]


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError) as error, replacing(tmp_path / "x") as temporary:
        temporary.write_text("x")
    assert str(tmp_path / "x") in str(error.value) and ".tmp" not in str(error.value)


@pytest.mark.parametrize("command", ["convert", "plan apply", "guidance init", "train"])
def test_commands_refuse_what_another_process_is_writing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import faithdiff_file
    import mutations

    from pgp_core.cli import main

    monkeypatch.chdir(tmp_path)
    faithdiff_file.write_bases(tmp_path / "files")
    runs: dict[str, tuple[str, Callable[[], list[str]]]] = {
        "convert": ("out/faithdiff-unet.safetensors", lambda: ["convert", f"files/{mutations.BIN}", "-o", "out"]),
        "plan apply": ("out.safetensors", lambda: [
            "plan", "apply", f"files/{mutations.NANO}", "pgp-nano", "-o", "out.safetensors"]),
        "guidance init": ("out.safetensors", lambda: ["guidance", "init", "-o", "out.safetensors"]),
        "train": ("run/", lambda: [
            "train", "finetune", "nano-regress", "--set", "run.folder=run", "--set", "run.steps=1",
            "--set", "data.pictures=1", "--set", "data.size=64", "--set", "data.patch=64", "--set", "data.batch=1",
            "--set", "data.workers=0", "--set", "run.device=cpu"]),
    }  # fmt: skip
    target, arguments = runs[command]
    folder = target.endswith("/")
    with locked(target, folder=folder):
        assert main(arguments()) == 1
    err = capsys.readouterr().err.strip().splitlines()
    assert f"is being written by process {os.getpid()} on this machine" in err[-1]
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*lock"))
    assert main(arguments()) == 0
    assert not list(tmp_path.rglob("*lock"))
