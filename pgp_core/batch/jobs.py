"""Which pictures are to be made, under which names, and which are done already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import PictureError
from ..images.finding import folder_id, place
from .marks import origin_of, said_by
from .names import Names, beside, key


@dataclass(frozen=True)
class Job:
    """One picture and its result."""

    source: Path
    target: Path


@dataclass
class Jobs:
    """What a run has to do.

    Attributes:
        todo: to be made.
        done: results that are there already.
        unsaid: those of ``done`` that do not say what they were made of, and are taken for results by their name.
        changed: those of ``done`` whose picture has changed since.
        results: inputs that are themselves results of this program, and are not enlarged again.
        maybe_results: those of ``results`` that are known by their name alone.
        failed: pictures whose result has no name that is free.
    """

    todo: list[Job] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)
    unsaid: list[Path] = field(default_factory=list)
    changed: list[Job] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    maybe_results: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, PictureError]] = field(default_factory=list)


def one_job(source: Path, target: Path, overwrite: bool) -> Jobs:
    """The job of one picture whose result has a name given.

    Raises:
        PictureError: if the result would overwrite its picture, or is there already and of another one.
    """
    if place(source) == place(target) or _same(source, target):
        raise PictureError(f"{source} would be overwritten by its own result: choose another name")
    state = "free" if overwrite else _state(target, source)
    if state == "foreign":
        raise PictureError(f"{target} is there already, made of another picture: --overwrite replaces it")
    jobs = Jobs()
    _sort_in(jobs, Job(source, target), state)
    return jobs


@dataclass(frozen=True)
class _Wish:
    """A picture, and names for its result, the best first."""

    source: Path
    within: bool
    targets: list[Path]


def plan_jobs(sources: Sequence[Path], folder: Path, suffix: str, overwrite: bool, lone: bool = False) -> Jobs:
    """Give every picture's result a name in ``folder``; see :mod:`.names`.

    A result that is there and says that it was made of this picture is found under any of its names. No result ever
    takes the place of an input; one of another picture is replaced only with ``overwrite``.

    Args:
        sources: each once.
        folder: is there.
        lone: one file was named and nothing else: it is enlarged, even if it is a result.
    """
    jobs, wishes, here = Jobs(), [], folder_id(folder)
    groups: dict[str, list[Path]] = {}
    for source in sources:
        groups.setdefault(folder_id(source.parent), []).append(source)
    names = {where: Names.of(group, folder, suffix, where == here) for where, group in groups.items()}
    called = beside(names[here].stems) if here in names else set()
    for where, group in groups.items():
        for source in group:
            known = _is_result(source, called) if where == here and not lone else ""
            if known:
                jobs.results.append(source)
                jobs.maybe_results += [source] if known == "name" else []
            else:
                wishes.append(_Wish(source, where == here, names[where].candidates(source)))
    taken = {key(w.source.name) for w in wishes if w.within}
    # What is there already first, so that its name is given to no other picture of this run.
    waiting: list[_Wish] = []
    for wish in wishes:
        states = ((t, _state(t, wish.source)) for t in wish.targets if key(t.name) not in taken)
        target, state = next((found for found in states if found[1] in ("own", "changed")), (None, ""))
        if target is None:
            waiting.append(wish)
        else:
            taken.add(key(target.name))
            _sort_in(jobs, Job(wish.source, target), "free" if overwrite else state)
    for wish in waiting:
        _choose(jobs, wish, taken, overwrite)
    turn = {source: i for i, source in enumerate(sources)}
    for listed in (jobs.todo, jobs.done):
        listed.sort(key=lambda job: turn[job.source])
    return jobs


def _choose(jobs: Jobs, wish: _Wish, taken: set[str], overwrite: bool) -> None:
    """Take the first name that is free."""
    for target in wish.targets:
        state = _state(target, wish.source)
        if key(target.name) in taken or (state == "foreign" and (wish.within or not overwrite)):
            continue
        taken.add(key(target.name))
        if overwrite and wish.within and state == "unsaid":
            wrong = f"{target} is there already and does not say that it is the result of {wish.source}: move it away"
            jobs.failed.append((wish.source, PictureError(wrong)))
        else:
            _sort_in(jobs, Job(wish.source, target), "free" if overwrite else state)
        return
    wrong = f"{wish.source}: all names for its result belong to other pictures: choose another output folder"
    jobs.failed.append((wish.source, PictureError(wrong)))


def _sort_in(jobs: Jobs, job: Job, state: str) -> None:
    if state == "free":
        jobs.todo.append(job)
        return
    jobs.done.append(job)
    if state == "unsaid":
        jobs.unsaid.append(job.target)
    elif state == "changed":
        jobs.changed.append(job)


def _state(target: Path, source: Path) -> str:
    """What stands where a result is to go: "free", or a result "own" of this picture, of it before it "changed",
    "foreign" of another picture, or a file that leaves it "unsaid"."""
    if not _exists(target):
        return "free"
    said = said_by(target)
    if said is None:
        return "unsaid"
    try:
        origin = origin_of(source)
    except OSError:
        # Found to be a file a moment ago; that it cannot be read is said when its turn comes.
        return "foreign"
    if said.content == origin.content:
        return "own"
    return "changed" if said.path == origin.path else "foreign"


def _is_result(path: Path, called: set[str]) -> str:
    """How a picture in the folder for results is known to be one: "mark", "name" or not at all, ""."""
    if said_by(path) is not None:
        return "mark"
    return "name" if path.name in called else ""


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _same(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except (OSError, ValueError):
        return False
