"""Which pictures belong together, by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ...batch.names import BESIDE, key
from ...errors import PGPError, name_some
from ...images.finding import known_extensions, look_for
from .results import Pair

#: What the field, and programs that enlarge, put behind a picture's name: ``_LR4``, ``_HR``, ``x4``, ``_out``.
_WORDS = rf"[ _.-](?:lr|hr|lq|hq|gt|sr|bicubic|out|output|result|restored|{BESIDE[1:]})(?:[ _-]?x?\d{{1,2}})?"
_SCALE = r"[ _.-](?:x\d{1,2}(?:\.\d+)?|\d{1,2}x)"
#: As in ``babyx4``; but ``box2`` may be a second box, so it is tried last.
_GLUED = r"x(?:[234568]|16)"
_APART = re.compile(rf"(?:{_WORDS}|{_SCALE})$", re.IGNORECASE)
_ANY = re.compile(rf"(?:{_WORDS}|{_SCALE}|{_GLUED})$", re.IGNORECASE)
_EXAMPLES = 3

Thing = TypeVar("Thing", bound=Hashable)


@dataclass
class Folder:
    """The pictures of a folder.

    Attributes:
        path: as it was given.
        files: its pictures.
        failed: entries that cannot be pictures: file to what is wrong with it.
        lone: one file was given, no folder.
    """

    path: Path
    files: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    lone: bool = False


@dataclass
class Matched:
    """What belongs together.

    Attributes:
        pairs: by name.
        unmatched: a line for each file without a partner.
    """

    pairs: list[Pair] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)


def pictures_in(path: Path) -> Folder:
    """The pictures of a folder, not of folders in it; or one file.

    Raises:
        PictureError: if it is not there, or holds no picture.
    """
    found = look_for([path])
    if not found.pictures and found.failed:
        raise found.failed[0][1]
    return Folder(path, list(found.pictures), {file: str(error) for file, error in found.failed}, found.lone)


def bare(stem: str, suffix: re.Pattern[str] = _ANY) -> str:
    """A name without what says only whether it is LQ, HQ or a result, or how large: ``Canon_001_LR4`` is
    ``canon_001``."""
    ending = re.search(r"\.\w{1,5}$", stem)
    if ending and ending[0].lower() in known_extensions():
        # b.jpg.png, where a folder held b.png too.
        stem = stem[: ending.start()]
    while (found := suffix.search(stem)) and found.start():
        stem = stem[: found.start()]
    return key(stem)


def match_pairs(lq: Folder, hq: Folder) -> Matched:
    """LQ and HQ pictures that have the same name, or the same :func:`bare` one; the former go first.

    Two single files belong together whatever they are called. Pairs are called as their HQ pictures.

    Raises:
        PGPError: if nothing matches, or two files could be the partner of one.
    """
    if lq.lone and hq.lone:
        return Matched([Pair(hq.files[0].stem, lq.files[0], hq.files[0])])
    found = _partners({h: [h.stem] for h in hq.files}, lq.files)
    if not found:
        raise _nothing(lq, hq)
    pairs = [Pair(h.stem, found[h], h) for h in hq.files if h in found]
    used = {p.lq for p in pairs}
    lines = [f"{h} has no LQ picture in {lq.path}" for h in hq.files if h not in found]
    lines += [f"{x} has no HQ picture in {hq.path}" for x in lq.files if x not in used]
    return Matched(sorted(pairs, key=lambda p: p.name), lines)


def match_results(pairs: Sequence[Pair], results: Folder) -> tuple[dict[str, Path], list[str]]:
    """Finished results of pairs, called as the LQ or the HQ picture.

    Returns:
        pair's name to file, and a line for each pair without a result and each result without a pair.

    Raises:
        PGPError: if nothing matches, or two files could be the result of one pair.
    """
    if results.lone and len(pairs) == 1:
        return {pairs[0].name: results.files[0]}, []
    found = _partners({p: [file.stem for file in (p.lq, p.hq) if file] for p in pairs}, results.files)
    if not found:
        hq = Folder(pairs[0].hq.parent if pairs[0].hq else Path(), [p.hq for p in pairs if p.hq])
        raise _nothing(results, hq)
    used = set(found.values())
    lines = [f"{p.name} has no result in {results.path}" for p in pairs if p not in found]
    lines += [f"{x} is no pair's result" for x in results.files if x not in used]
    return {p.name: found[p] for p in pairs if p in found}, lines


def match_folders(folders: Sequence[Folder]) -> tuple[list[Pair], list[dict[str, Path]]]:
    """Pictures of several folders that show the same, for rows to be compared; a picture is called as in the first
    folder that has it.

    Returns:
        all pictures, by name, and for each folder name to file.

    Raises:
        PGPError: if two files of a folder could be the partner of one.
    """
    named: dict[str, Path] = {}
    rows: list[dict[str, Path]] = []
    for folder in folders:
        stems = _named(folder)
        found = _partners({name: [file.stem] for name, file in named.items()}, folder.files) if named else {}
        used = set(found.values())
        row = dict(found)
        for file in folder.files:
            if file not in used:
                name = stems[file] if stems[file] not in named else f"{folder.path.name}/{stems[file]}"
                row[name] = named[name] = file
        rows.append(row)
    return [Pair(name) for name in sorted(named)], rows


def _named(folder: Folder) -> dict[Path, str]:
    """What a folder's pictures are called: their stem, with the ending where others have that stem too."""
    counts: dict[str, int] = {}
    for file in folder.files:
        counts[key(file.stem)] = counts.get(key(file.stem), 0) + 1
    return {file: file.stem if counts[key(file.stem)] == 1 else file.name for file in folder.files}


def _partners(wanted: Mapping[Thing, Sequence[str]], files: Iterable[Path]) -> dict[Thing, Path]:
    """For each thing that is called by some names, the file that has one of them, else the one whose bare name is the
    same."""
    found: dict[Thing, Path] = {}
    left = list(files)
    forms: list[Callable[[str], str]] = [key, lambda stem: bare(stem, _APART), bare]
    for form in forms:
        by_name: dict[str, list[Path]] = {}
        for file in left:
            by_name.setdefault(form(file.stem), []).append(file)
        claims: dict[Path, Thing] = {}
        for thing, names in wanted.items():
            if thing in found:
                continue
            candidates = [file for name in dict.fromkeys(map(form, names)) for file in by_name.get(name, ())]
            if len(candidates) > 1:
                raise PGPError(
                    f"{candidates[0]} and {candidates[1]} both fit {_called(thing)}: move one away, or rename it"
                )
            if candidates:
                (file,) = candidates
                if file in claims:
                    raise PGPError(
                        f"{file} fits both {_called(claims[file])} and {_called(thing)}: move one away, or rename it"
                    )
                claims[file], found[thing] = thing, file
        left = [file for file in left if file not in claims]
    return found


def _called(thing: object) -> str:
    return thing.name if isinstance(thing, Pair) else str(thing)


def _nothing(one: Folder, other: Folder) -> PGPError:
    def examples(folder: Folder) -> str:
        return name_some((p.name for p in folder.files), _EXAMPLES)

    return PGPError(
        f"no picture in {one.path} is called as one in {other.path}: {examples(one)} against {examples(other)}; the "
        "same name is needed, but for endings such as _LR4, _HR and x4"
    )
