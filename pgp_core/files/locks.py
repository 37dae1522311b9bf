"""One process at a time writes a result, a model or a run's folder; the others are told which one does.

A lock is the system's own, on a small hidden file beside what is written: it ends with its process, however that ends.
The file is removed with the lock, and one that a killed process left is removed by whoever comes next.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import PGPError
from ..progress import Say

LOCK_SUFFIX = ".pgp-lock"
#: No file system takes longer names; some bytes are for dot and ending.
_LONGEST = 200
#: Where Windows locks a byte: beyond what is written, which others may read then.
_FAR = 1 << 30
#: Seconds between two tries while waiting.
_PAUSE = 0.5


class BusyError(PGPError):
    """Another process is writing what was to be written."""


@contextmanager
def locked(
    path: str | os.PathLike[str],
    advice: str = "wait for it, or choose another name",
    wait: Say | None = None,
    folder: bool = False,
) -> Iterator[None]:
    """Hold what is to be written at ``path``.

    The folder is made; if it is empty afterwards, it is removed. Where the file system knows no locks, or takes no
    files, the block runs without one.

    Args:
        folder: ``path`` is a folder, held as a whole.
        advice: what to do, for the error.
        wait: called once with who has it, if that has to be waited for; without it nothing is waited for.

    Raises:
        BusyError: naming the process that has it, its machine, and since when.
    """
    path = Path(path)
    file = lock_file(path, folder)
    made = _make(file.parent)
    descriptor = _acquire(file, path, advice, wait)
    try:
        yield
    finally:
        if descriptor is not None:
            _release(file, descriptor)
        for empty in made:
            with suppress(OSError):
                empty.rmdir()


def lock_file(path: Path, folder: bool = False) -> Path:
    """Where the lock of a file, or of a folder, lies."""
    if folder:
        # With a name before it: a file that is all ending has none, and some of ComfyUI's lists take those.
        return path / f".run{LOCK_SUFFIX}"
    name = path.name
    while len(os.fsencode(name)) > _LONGEST:
        name = name[: len(name) // 2]
    return path.parent / f".{name}{LOCK_SUFFIX}"


def remove_if_free(file: Path) -> None:
    """Remove a lock's file that no process holds."""
    with suppress(OSError):
        descriptor = _open(file, os.O_RDWR)
        try:
            free = _take(descriptor) and _is(file, descriptor)
        except OSError:
            os.close(descriptor)
            return
        if free:
            _release(file, descriptor)
        else:
            os.close(descriptor)


def _make(folder: Path) -> list[Path]:
    """Make a folder; those that were not there, the deepest first."""
    missing = []
    for parent in (folder, *folder.parents):
        if parent.exists():
            break
        missing.append(parent)
    # What writes there will say why it cannot.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(file: Path, path: Path, advice: str, wait: Say | None) -> int | None:
    told = False
    while True:
        try:
            descriptor = _open(file, os.O_RDWR | os.O_CREAT)
        except OSError:
            return None
        try:
            taken = _take(descriptor)
        except OSError:
            os.close(descriptor)
            with suppress(OSError):
                file.unlink()
            return None
        # Another may have removed it between opening and locking.
        if taken and _is(file, descriptor):
            _sign(descriptor)
            return descriptor
        owner = _owner(descriptor) if not taken else ""
        os.close(descriptor)
        if taken:
            continue
        if wait is None:
            raise BusyError(f"{path.name or path} is being written by {owner}: {advice}")
        if not told:
            wait(owner)
            told = True
        time.sleep(_PAUSE)


def _release(file: Path, descriptor: int) -> None:
    if os.name == "nt":
        # There a file that is open cannot be removed; one that another has opened meanwhile stays for that one.
        os.close(descriptor)
        with suppress(OSError):
            file.unlink()
        return
    with suppress(OSError):
        file.unlink()
    os.close(descriptor)


def _open(file: Path, flags: int) -> int:
    return os.open(file, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _take(descriptor: int) -> bool:
    """Lock it if it is free.

    Raises:
        OSError: if the file system knows no locks.
    """
    if os.name == "nt":
        import msvcrt

        windows: Any = msvcrt
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            windows.locking(descriptor, windows.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is(file: Path, descriptor: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    return False


def _sign(descriptor: int) -> None:
    about = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(about).encode())


def _owner(descriptor: int) -> str:
    """Who holds it, in words."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        about = json.loads(os.read(descriptor, 4096))
        pid, host, since = int(about["pid"]), str(about["host"]), str(about["since"])
    except Exception:
        # It may be signing just now.
        return "another process"
    here = "this machine" if host == platform.node() else host
    return f"process {pid} on {here} since {since}"
