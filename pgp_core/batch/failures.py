"""Whatever is raised while one picture is worked on becomes that picture's error, in one line."""

from __future__ import annotations

import errno
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import Cancelled, PGPError, PictureError
from ..files.boundary import first_line

_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "unable to allocate")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def one_picture(path: str | Path) -> Iterator[None]:
    """A block that works on one picture.

    Raises:
        PictureError: with the picture's name and the cause, for every exception but being cancelled or interrupted.
            What raised is its ``__cause__``. Memory is given back where it ran out.
    """
    try:
        yield
    except Cancelled:
        raise
    except Exception as e:
        raise picture_error(path, e) from e


def picture_error(path: str | Path, error: Exception) -> PictureError:
    """The error of one picture: which, and why."""
    if lacks_memory(error):
        cause = "there is not enough memory for it: a smaller result, or a smaller --tile, takes less"
    elif _fills_disk(error):
        cause = "its result cannot be written: the disk is full"
    elif isinstance(error, PictureError) and str(PGPError(Path(path).name)) in str(error):
        return error
    elif isinstance(error, PGPError):
        cause = str(error)
    else:
        kind = type(error)
        # struct.error, zlib.error: the module is what names them.
        name = f"{kind.__module__}.{kind.__name__}" if kind.__name__ == "error" else kind.__name__
        cause = f"{name}: {first_line(error)}"
    return PictureError(f"{path}: {cause}")


def lacks_memory(error: BaseException) -> bool:
    """Whether memory, of the machine or a card, ran out."""
    if isinstance(error, MemoryError):
        return True
    # CPUs have no class of their own for it in PyTorch.
    return isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in _NO_MEMORY)


def give_back_memory() -> None:
    """After memory has run out: let go of what a failed picture held, so that the next has it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _fills_disk(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
