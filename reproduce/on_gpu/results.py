"""A part's results as JSON, written anew with every row: a run that ends early has still said something."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMAT = "pgp-diffsr/on-gpu"


class SkippedError(Exception):
    """A row cannot be had here; the message says why."""


class FailedError(Exception):
    """A row ran and its result is not as it should be.

    Args:
        message: what is wrong.
        found: the row's figures all the same.
    """

    def __init__(self, message: str, found: dict[str, Any] | None = None):
        super().__init__(message)
        self.found = found or {}


def write(file: Path, data: dict[str, Any]) -> None:
    """Whole or not at all: the process may be ended at any time."""
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, file)


def read(file: Path) -> dict[str, Any]:
    """What a part has written; nothing where it has written none."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


class Results:
    """The rows of one part. Rows may come from several threads.

    A row is ``{"state": "ok" | "failed" | "skipped", "took": seconds}``, with ``error`` or ``reason`` where it is not
    ok, and with figures of its own. While a row runs, ``now`` names it.
    """

    def __init__(self, file: Path, about: dict[str, Any]):
        self.file = file
        self.data = {"format": FORMAT, "version": 1, **about, "state": "running", "now": [], "rows": {}}
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._write()

    def row(self, name: str, make: Callable[[], dict[str, Any] | None]) -> bool:
        """Run one row and keep what it returns, or how it failed; whether it is ok."""
        began = time.monotonic()
        with self._lock:
            self.data["now"].append(name)
            self._write()
        try:
            found: dict[str, Any] = {"state": "ok", **(make() or {})}
        except SkippedError as e:
            found = {"state": "skipped", "reason": str(e)}
        except FailedError as e:
            found = {"state": "failed", "error": str(e), **e.found}
        except Exception as e:
            # A traceback holds the tensors of what failed: only its text is kept.
            found = {"state": "failed", "error": f"{type(e).__name__}: {e}", "traceback": traceback.format_exc()}
        self.put(name, found, time.monotonic() - began)
        return found["state"] == "ok"

    def put(self, name: str, found: dict[str, Any], took: float) -> None:
        """Keep a row that was run elsewhere, in so many seconds."""
        with self._lock:
            if name in self.data["now"]:
                self.data["now"].remove(name)
            self.data["rows"][name] = {**found, "took": round(took, 2)}
            self._write()
        detail = found.get("error") or found.get("reason") or ""
        print(f"  {name}: {found['state']}, {took:.1f} s {detail.strip()[-300:]}", flush=True)  # noqa: T201

    def finish(self) -> int:
        """After the last row; how many rows failed."""
        failed = sum(row["state"] == "failed" for row in self.data["rows"].values())
        self.data["state"] = "failed" if failed else "done"
        self._write()
        return failed

    def _write(self) -> None:
        self.data["elapsed"] = round(time.monotonic() - self._began, 2)
        write(self.file, self.data)
