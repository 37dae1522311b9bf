"""Some 80 files as users have them: cameras', editors', broken and hostile ones, each with what is to become of it.

What is to become of a file follows from how it is made: the pixels that it shows are known before it is written, and
what cannot be shown lacks them. Nothing here is learnt from the code that is tested.
"""

from __future__ import annotations

import os
from pathlib import Path

from . import broken, metadata, modes, names
from .scene import Odd

__all__ = ["Odd", "make"]


def make(folder: Path) -> list[Odd]:
    """Write all of them into ``folder``; those that are no pictures of anybody's are not in the list."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [odd for kind in (metadata, modes, names, broken) for odd in kind.make(folder)]
    listed = [os.fsencode(odd.name) for odd in made]
    assert len(set(listed)) == len(listed)
    return made
