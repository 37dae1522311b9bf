"""What reaches a terminal: nothing that it would obey, in any encoding, whoever reads and however it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pgp_core.cli import main, output
from pgp_core.errors import PGPError
from pgp_core.unet import plan
from pgp_core.visible import visible

#: A name that colours the terminal, sets its title, turns the direction of writing, and breaks the line.
HOSTILE = "a\x1b[31m\x1b]0;title\x07\u202egnp\u2066\r\n\x9b2J\x7f"
RUN = [sys.executable, "-m", "pgp_core.cli"]


def assert_harmless(text: str) -> None:
    """Only what a terminal prints; line ends are ours."""
    found = re.findall(r"[^\n -~\u00a0-\u061b\u061d-\u200a\u2010-\u2027\u202f-\u205f\u206a-\ud7ff\ue000-\ufefe]", text)
    assert found == [], found


def test_control_characters_are_written_out() -> None:
    assert visible(HOSTILE) == "a\\x1b[31m\\x1b]0;title\\x07\\u202egnp\\u2066\\r\\n\\x9b2J\\x7f"
    assert visible("photo ü 写真 \u00a0 é") == "photo ü 写真 \u00a0 é"
    # What Python makes of a name that is no UTF-8: the byte is shown.
    assert visible(os.fsdecode(b"\xff.png")) == "\\xff.png"
    assert_harmless(str(PGPError(HOSTILE)))


def test_every_way_to_print_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(HOSTILE)
    output.plain(HOSTILE)
    output.table([(HOSTILE, HOSTILE), ("b", "c")])
    output.emit({HOSTILE: HOSTILE})
    captured = capsys.readouterr()
    assert_harmless(captured.err)
    assert_harmless(captured.out)
    assert len(captured.err.splitlines()) == 4
    assert json.loads(captured.out) == {HOSTILE: HOSTILE}


@pytest.mark.parametrize("arguments", [
    [HOSTILE], ["plan", "show", HOSTILE], ["upscale", HOSTILE, "-o", HOSTILE], ["plan", "list", "--x" + HOSTILE],
    ["train", "finetune", HOSTILE], ["convert", HOSTILE, "-o", HOSTILE], ["plan", "show", "x\0y"],
    ["upscale", "a\0b", "-o", "c"],
])  # fmt: skip
def test_arguments_reach_the_terminal_harmless(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(arguments)
    except SystemExit as e:
        status = e.code  # type: ignore[assignment]
    assert status in (1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert_harmless(captured.err)


def test_nothing_on_the_command_line_takes_a_number_of_5000_digits(capsys: pytest.CaptureFixture[str]) -> None:
    huge = "9" * 5000
    commands = [
        ["upscale", "a.png", "-o", "b", "--seed", huge], ["upscale", "a.png", "-o", "b", "--scale", huge],
        ["upscale", "a.png", "-o", "b", "--width", huge], ["guidance", "init", "-o", "x", "--seed", str(2**64)],
        ["guidance", "init", "-o", "x", "--seed", "-1"], ["train", "finetune", "x", "--threads", "-1"],
        ["train", "finetune", "x", "--threads", huge], ["train", "nano", "--threads", "0"],
        ["train", "sheet", "x", "-o", "y", "--seed", str(2**64)], ["eval", "quality", "-o", "x", "--seeds", "0"],
        ["eval", "quality", "-o", "x", "--seeds", huge], ["analyze", "--images", "x", "-o", "y", "--seed", huge],
        ["analyze", "--images", "x", "-o", "y", "--limit", "-1"], ["plot", "phase", "x", "-o", "y", "--limit", "0"],
        ["bench", "unet", "--latent", huge], ["plan", "show", "pgp-nano", "--latent", huge],
        ["plan", "build", "-o", "x", "--method", "fine", "--max-params", huge],
    ]  # fmt: skip
    for command in commands:
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 2, command
        lines = capsys.readouterr().err.splitlines()
        assert sum("error:" in line for line in lines) == 1, command
        assert all(len(line) < 800 for line in lines), command


def test_what_nobody_foresaw_is_one_line_and_with_debug_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_name: str) -> None:
        raise LookupError(f"in {HOSTILE}\nand more")

    monkeypatch.setattr("pgp_core.cli.plan.load_plan", fails)
    assert main(["plan", "show", "x"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pgp-diffsr: error: LookupError: in a") and line.endswith(
        "this is a mistake of pgp-diffsr: run with --debug and report it"
    )
    assert_harmless(line)
    with pytest.raises(LookupError):
        main(["--debug", "plan", "show", "x"])


@pytest.mark.parametrize(("error", "words"), [
    (MemoryError(), "not enough memory"), (OSError(28, "No space left on device", "/data/x"), "No space left on"),
    (RecursionError("too deep"), "RecursionError: too deep; this is a mistake"),
])  # fmt: skip
def test_what_the_system_refuses_is_no_mistake_of_ours(
    error: Exception, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_name: str) -> None:
        raise error

    monkeypatch.setattr("pgp_core.cli.plan.load_plan", fails)
    assert main(["plan", "show", "x"]) == 1
    assert words in capsys.readouterr().err


def test_messages_hold_no_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, work = tmp_path / "home" / "somebody", tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(work)
    text = str(PGPError(f"{home}/models/x.bin, '{work}/runs/y' and /mnt{work}/z"))
    assert text == f"~/models/x.bin, 'runs/y' and /mnt{work}/z"
    with pytest.raises(PGPError) as error:
        plan.load_plan(work / "sub" / "none.json")
    assert str(work) not in str(error.value) and "sub/none.json" in str(error.value)
    monkeypatch.delenv("HOME")
    assert str(PGPError("/data/x")) == "/data/x"


# -- streams -------------------------------------------------------------------------------------------------


def run(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *arguments], text=True, stderr=subprocess.PIPE, timeout=120, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("to", ["out", "err"])
def test_a_reader_that_goes_away_ends_it_quietly(to: str) -> None:
    """As ``| head`` does. The read end is closed before anything is written."""
    read, write = os.pipe()
    os.close(read)
    arguments = ["plan", "list", *(["--json"] if to == "out" else [])]
    streams = {"stdout": write} if to == "out" else {"stdout": subprocess.PIPE}
    process = subprocess.Popen(
        [*RUN, *arguments], stderr=subprocess.PIPE if to == "out" else write, text=True, **streams
    )  # type: ignore[call-overload]
    os.close(write)
    _, err = process.communicate(timeout=120)
    # What a shell says of cat, seq and the like.
    assert process.returncode == 141
    assert not err


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full, and a shell")
@pytest.mark.parametrize(("redirection", "status"), [(">/dev/full", 1), (">&-", 1), ("2>&- <&-", 0)])
def test_streams_that_are_closed_or_full(redirection: str, status: int) -> None:
    command = " ".join([*RUN, "plan", "list", "--json", redirection])
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert result.returncode == status, result.stderr
    assert [line for line in result.stderr.splitlines() if "standard output" not in line] == []
    assert len(result.stderr.splitlines()) == status


def test_a_closed_stderr_does_not_land_in_a_result(tmp_path: Path) -> None:
    """The first file that is opened would get its number."""
    code = "import os; from pgp_core.cli.output import prepare_streams; prepare_streams()\n"
    code += f"f = open({str(tmp_path / 'result')!r}, 'w'); os.write(2, b'a warning of some library'); f.write('whole')"
    script = tmp_path / "script.py"
    script.write_text(code)
    subprocess.run(["sh", "-c", f"{sys.executable} {script} 2>&-"], check=True, timeout=120)
    assert (tmp_path / "result").read_text() == "whole"


def test_a_terminal_of_ascii_takes_any_name() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    result = run(["plan", "show", "写真 é …"], stdout=subprocess.PIPE, env=environment)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and "\\u5199\\u771f \\xe9 \\u2026" in result.stderr


def test_without_a_home_folder(tmp_path: Path) -> None:
    """A container's user may have none, nor a name."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "USERPROFILE", "XDG_CACHE_HOME")}
    config = tmp_path / "x.toml"
    config.write_text('[run]\nfolder = "~nobody-at-all/x"\nsteps = 1\n[model]\nkind = "nano"\nguidance = "base"\n'
                      '[data]\nkind = "folder"\nfolder = "~nobody-at-all/pictures"\n')  # fmt: skip
    result = run(["train", "finetune", str(config), "--dry-run"], stdout=subprocess.PIPE, env=environment, cwd=tmp_path)
    assert result.returncode in (0, 1) and "Traceback" not in result.stderr, result.stderr
