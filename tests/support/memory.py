"""Peak memory of one action in this process, on Linux; run in a fresh process, since allocators keep what they had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        peak: how far resident memory rose above what it was, files' mapped pages included: they count against a
            container's limit too while they are mapped.
        mapped: of a file's pages that are mapped and were touched, at the end.
    """

    peak: int
    mapped: int


def available() -> bool:
    """Whether this system keeps a peak that can be reset."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def measure(action: Callable[[], Any], file: Path) -> tuple[Any, Memory]:
    """An action's result and what it took; ``file`` is the one that it maps."""
    # Resets the peak, VmHWM.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmHWM")
    result = action()
    return result, Memory(_status("VmHWM") - before, _mapped(file))


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def _mapped(file: Path) -> int:
    """Resident bytes of the mappings of a file: what was read through them, in steps of the kernel's fault-around.

    Not mincore: that tells what the page cache holds, which is the whole of a file that was just written.
    """
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if not head.endswith(":"):
            inside = line.endswith(str(file))
        elif inside and head == "Rss:":
            total += int(line.split()[1]) * 1024
    return total
