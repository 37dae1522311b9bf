"""Names of temporary files that say whose they are, so that those of killed runs are found and removed."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

from .locks import LOCK_SUFFIX, remove_if_free

#: ``.pgp-HOST-PID-STARTED-RANDOM.tmp``. No model's or picture's ending, and hidden.
_OURS = re.compile(r"\.pgp-([0-9a-f]{8})-([0-9]{1,10})-([0-9]{1,20})-[0-9a-f]{12}\.tmp")
#: What releases before this one called theirs.
_OLD = re.compile(r"\.[0-9a-f]{12}\.tmp(\.\w+)?")
#: What the writer of safetensors calls the file that it puts in the place of ours.
_LIBRARYS = re.compile(r"\.tmp[A-Za-z0-9]{6}")
#: Seconds after which a file counts as abandoned, where nobody can say whether its writer still runs.
_FORGOTTEN = 3 * 24 * 3600.0
#: Seconds between two looks at one folder.
_AGAIN = 600.0

_looked: dict[str, float] = {}


def temporary_name() -> str:
    """A new name for a file of this process."""
    return f".pgp-{_host()}-{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(6)}.tmp"


def is_leftover(name: str) -> bool:
    """Whether a file of this name is temporary, a lock's, or of the kind that earlier releases left: no result."""
    patterns = (_OURS, _OLD, _LIBRARYS)
    return any(p.fullmatch(name) for p in patterns) or name.endswith(LOCK_SUFFIX)


def sweep(folder: Path) -> None:
    """Remove temporary files and locks whose process is gone; those of other machines, which share a drive with this
    one, when they are old. A folder is looked at now and then; nothing is raised."""
    now = time.monotonic()
    key = os.path.abspath(folder)
    if now - _looked.get(key, -_AGAIN) < _AGAIN:
        return
    _looked[key] = now
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") or not entry.is_file(follow_symlinks=False):
                continue
            if entry.name.endswith(LOCK_SUFFIX):
                remove_if_free(Path(entry.path))
            elif _is_nobodys(entry):
                with suppress(OSError):
                    os.unlink(entry.path)


def _is_nobodys(entry: os.DirEntry[str]) -> bool:
    found = _OURS.fullmatch(entry.name)
    # Other programs' files may be called as the library calls its own.
    librarys = bool(_LIBRARYS.fullmatch(entry.name)) and _begins_as_safetensors(entry.path)
    if not (found or librarys or _OLD.fullmatch(entry.name)):
        return False
    if found is not None and found[1] == _host():
        started = _started(int(found[2]))
        if started != "0" and found[3] != "0":
            return started != found[3]
    with suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _FORGOTTEN
    return False


def _begins_as_safetensors(path: str) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(9)[6:] == b"\0\0{"
    return False


@functools.cache
def _host() -> str:
    """This machine, and in containers the space in which process numbers count."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()}/{space}".encode("utf-8", "replace")).hexdigest()[:8]


def _started(pid: int) -> str:
    """When a process began, in the system's own units; "" where there is none, "0" where it cannot be known.

    A number alone would do no good: systems use them again.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        # The name, in parentheses, may hold anything.
        return text.rpartition(")")[2].split()[19]
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return ""
    except (OSError, IndexError):
        return "0"
    try:
        import psutil

        return str(int(psutil.Process(pid).create_time()))
    except Exception as e:
        return "" if type(e).__name__ == "NoSuchProcess" else "0"
