"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .leftovers import sweep, temporary_name


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to; it takes the name when the ``with`` block ends well.

    The folder is made if it is missing. When the block raises, the temporary file is deleted and what had
    the name before stays as it was. What runs that were killed left in the folder is removed.

    Yields:
        the temporary file's path: it exists and is empty. Its ending is ``.tmp``, so that nothing takes it for a
        picture or a model: tell a writer that goes by endings which format is meant.

    Raises:
        OSError: if the folder cannot be made or written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    # Not tempfile's: those are readable by their owner alone, whatever the umask says.
    temporary = path.parent / temporary_name()
    temporary.open("xb").close()
    mode = temporary.stat().st_mode
    try:
        yield temporary
        # Some writers, safetensors among them, put a file of their own in its place.
        temporary.chmod(mode)
        os.replace(temporary, path)
    except OSError as e:
        # Messages name the file that was asked for.
        if e.filename is not None and os.fsdecode(e.filename) == str(temporary):
            e.filename = str(path)
            if e.filename2 is not None:
                del e.filename2
        raise
    finally:
        temporary.unlink(missing_ok=True)
