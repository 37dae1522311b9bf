"""Each part in a process of its own with a time limit of its own: what one does, no other suffers from."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .results import FORMAT, read, write

#: Seconds between the wish that a process ends and its end by force.
GRACE = 3.0


@dataclass(frozen=True)
class Part:
    """One part of the run.

    Attributes:
        number: what ``--parts`` calls it.
        name: of its JSON file, behind the number.
        seconds: its limit.
    """

    number: int
    name: str
    seconds: float

    def file(self, out: Path) -> Path:
        """Its results."""
        return out / f"{self.number}-{self.name}.json"


def run(command: Sequence[str], seconds: float, log: Path, env: dict[str, str] | None = None) -> int | None:
    """Run a command, its output appended to ``log``; its exit status, None where it was ended at the limit.

    Whatever it has started is ended with it. Nothing is ever asked: there is no standard input.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and all of its group, a server that it has left behind too."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            # What it has started may need a moment longer; a group with nobody in it is gone.
            end = time.monotonic() + GRACE
            while how is signal.SIGTERM and _group_lives(process.pid) and time.monotonic() < end:
                time.sleep(0.05)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def end_with_parent() -> None:
    """From now on this process and its group end when their parent does, however that ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def supervise(
    parts: Sequence[Part],
    command: Callable[[Part], Sequence[str]],
    out: Path,
    seconds: float,
    env: dict[str, str] | None = None,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run parts one after the other and keep a summary in ``out/summary.json``, written after each.

    Args:
        command: of a part's process; it writes ``part.file(out)``.
        seconds: what all parts may take together; a part gets its own limit or what is left, whichever is less.
        about: for the summary's head.

    Returns:
        the summary.
    """
    began = time.monotonic()
    summary: dict[str, Any] = {"format": FORMAT, "version": 1, **(about or {}), "parts": {}}
    for part in parts:
        file = part.file(out)
        # A former run's results are not this one's.
        file.unlink(missing_ok=True)
        left = seconds - (time.monotonic() - began)
        limit = min(part.seconds, left)
        said: dict[str, Any] = {"limit": round(limit, 1)}
        if limit <= 0:
            said.update(state="not run", reason=f"the {seconds:g} s of the whole run were spent")
        else:
            print(f"part {part.number}, {part.name}: at most {limit:.0f} s", flush=True)  # noqa: T201
            started = time.monotonic()
            status = run(command(part), limit, out / "log.txt", env)
            said.update(_judged(file, status, limit), seconds=round(time.monotonic() - started, 1))
        summary["parts"][part.name] = said
        print(f"part {part.number}, {part.name}: {line(said)}", flush=True)  # noqa: T201
        summary["ok"] = len(summary["parts"]) == len(parts) and all(
            p["state"] == "done" for p in summary["parts"].values()
        )
        write(out / "summary.json", summary)
    return summary


def _judged(file: Path, status: int | None, limit: float) -> dict[str, Any]:
    """What became of a part, by its exit status and its rows; its file says so too."""
    data = read(file) or {"format": FORMAT, "version": 1, "rows": {}}
    if status is None:
        data.update(state="timed out", error=f"ended after {limit:.0f} s")
    elif status and data.get("state") in (None, "running"):
        data.update(state="failed", error=f"its process ended with {status}: see log.txt")
    elif data.get("state") in (None, "running"):
        data.update(state="failed", error="its process ended without results: see log.txt")
    write(file, data)
    rows = data["rows"]
    said: dict[str, Any] = {"state": data["state"]}
    said |= {key: data[key] for key in ("error", "now") if data.get(key)}
    for state in ("ok", "failed", "skipped"):
        said[state] = [name for name, row in rows.items() if row["state"] == state]
    return said


def line(said: dict[str, Any]) -> str:
    """A part's entry in the summary, for people."""
    if said["state"] == "not run":
        return f"not run: {said['reason']}"
    text = f"{said['state']} in {said['seconds']:.0f} s, {len(said['ok'])} rows ok"
    for state in ("failed", "skipped"):
        if said[state]:
            text += f", {state}: {'; '.join(said[state])}"
    if said.get("error"):
        text += f" ({said['error']}{', in ' + ', '.join(said['now']) if said.get('now') else ''})"
    return text
