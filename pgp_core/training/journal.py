"""The log of a run: one JSON object a line. After resuming it reads as if nothing had interrupted the run."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..files.atomic import replacing


class Journal:
    """``log.jsonl``, written at once; rows after ``step`` are cut off first.

    A killed run has written rows that its last checkpoint knows nothing of, and perhaps half a row: they are
    written again.
    """

    def __init__(self, path: Path, step: int):
        self.path = path
        rows = [r for r in read_rows(path) if r["step"] <= step]
        try:
            with replacing(path) as temporary:
                temporary.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")
        except OSError as e:
            raise self._failed(e) from None

    def write(self, row: dict[str, Any]) -> None:
        """Add a row.

        Raises:
            TrainingError: if it cannot be written.
        """
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as e:
            raise self._failed(e) from None

    def close(self) -> None:
        """Close the file; what a full disk did not take is given up."""
        with suppress(OSError):
            self._file.close()

    def _failed(self, e: OSError) -> TrainingError:
        return TrainingError(
            f"the log {self.path} cannot be written ({e.strerror or e}): make room and run the same command again"
        )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a log; none where there is no file."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").removeprefix("\ufeff").splitlines():
            try:
                row = json.loads(line)
            # A row in half, or anything else that is none of ours.
            except Exception:
                continue
            if isinstance(row, dict) and type(row.get("step")) is int and row["step"] >= 0:
                rows.append(row)
    return rows
