"""What results are called.

``a/b.jpg`` becomes ``OUT/b.png``. Three things stand in the way of that name, and each has its own way out:

* In one folder several pictures share a stem (``b.jpg``, ``b.png``). One keeps the plain name: that with the
  result's own ending, else the first by name; the others keep their ending too: ``OUT/b.jpg.png``. This follows from
  what lies in the folder, not from which of it is meant.
* The pictures lie in the folder that the results go to: ``OUT/b_upscaled.png``, for all of them.
* The name belongs to a picture of another folder: ``OUT/a_b.png``, and if that is no better, a digest of the whole
  path.

Names that differ by case or by Unicode's normal form only are the same name: on some file systems they are.
"""

from __future__ import annotations

import functools
import hashlib
import os
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..images.finding import known_extensions

#: Put behind the stem of results that lie beside their pictures.
BESIDE = "_upscaled"
_LONGEST = 255


@functools.lru_cache(1 << 16)
def key(name: str) -> str:
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def stems(folder: Path, pictures: Sequence[Path], suffix: str) -> dict[str, str]:
    """What distinguishes each picture of one folder: its stem, or more where others have that stem too.

    Args:
        folder: its other pictures count too, as far as it can be listed.
        pictures: in it.
        suffix: of the results.

    Returns:
        a stem for each file name.
    """
    names = {p.name for p in pictures}
    try:
        known = known_extensions()
        with os.scandir(folder) as entries:
            names |= {
                e.name for e in entries if os.path.splitext(e.name)[1].lower() in known and not e.name.startswith(".")
            }
    except OSError:
        pass

    def rank(name: str) -> tuple[bool, str, str]:
        return Path(name).suffix.lower() != suffix, key(name), name

    found: dict[str, str] = {}
    taken: set[str] = set()
    ranked = sorted(names, key=rank)
    # All plain stems first: a file may be called as another's way out (b.jpg.png beside b.jpg and b.png).
    for name in ranked:
        if key(Path(name).stem) not in taken:
            found[name] = Path(name).stem
            taken.add(key(Path(name).stem))
    for name in ranked:
        if name not in found:
            stem = name if key(name) not in taken else f"{name}_{_digest(os.fsencode(name))}"
            found[name] = stem
            taken.add(key(stem))
    return found


@dataclass(frozen=True)
class Names:
    """What results of one folder's pictures may be called.

    Attributes:
        stems: see :func:`stems`.
        where: the folder's whole path.
        folder: for the results.
        end: of every name.
        longest: bytes of a name in ``folder``.
    """

    stems: dict[str, str]
    where: str
    folder: Path
    end: str
    longest: int

    @classmethod
    def of(cls, pictures: Sequence[Path], folder: Path, suffix: str, within: bool) -> Names:
        """The names for the pictures of one folder; ``within`` says whether that is ``folder`` itself."""
        parent = pictures[0].parent
        end = (BESIDE if within else "") + suffix
        return cls(stems(parent, pictures, suffix), os.path.realpath(parent), folder, end, _longest_name(folder))

    def candidates(self, picture: Path) -> list[Path]:
        """Names for the result of a picture, the best first."""
        stem, above = self.stems[picture.name], os.path.basename(self.where)
        digest = _digest(os.fsencode(os.path.join(self.where, picture.name)))
        bodies = [stem, *([f"{above}_{stem}"] if above else []), f"{stem}_{digest}"]
        return [self.folder / _fitting(body, self.end, self.longest) for body in bodies]


def beside(names: Collection[str]) -> set[str]:
    """Those of a folder's file names that belong to results whose picture lies beside them."""
    called = [name for name in names if Path(name).stem.endswith(BESIDE)]
    known = {key(text) for name in names for text in (name, Path(name).stem)} if called else set()
    return {name for name in called if key(Path(name).stem.removesuffix(BESIDE)) in known}


def _fitting(body: str, end: str, longest: int) -> str:
    """``body + end``, with the body cut where a file name cannot be as long."""
    if len(os.fsencode(body + end)) <= longest:
        return body + end
    end = f"_{_digest(os.fsencode(body))}{end}"
    while body and len(os.fsencode(body + end)) > longest:
        body = body[:-1]
    return body + end


def _longest_name(folder: Path) -> int:
    try:
        return min(_LONGEST, os.pathconf(folder, "PC_NAME_MAX"))
    except (AttributeError, OSError, ValueError):
        return _LONGEST


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]
