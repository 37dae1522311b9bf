"""``--model``, ``--sr`` and ``--name``: each of the first two begins a row, and what follows belongs to it.

What stands before the first holds for all, as with ffmpeg.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import model_options, sampling_options

NAME = "--name"


@dataclass
class Segment:
    """What stands behind one ``--model`` or ``--sr``, or before the first of them.

    Attributes:
        kind: ``"model"``, ``"sr"``, or ``"all"`` before the first.
        value: of the option that began it.
        values: of the row's options.
    """

    kind: str
    value: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)


def add_to(parser: argparse.ArgumentParser, finished: bool = True) -> None:
    """Register the options of rows, those of models among them.

    Args:
        finished: whether finished results are rows too.
    """
    begin = "each --sr and each --model is" if finished else "each --model is"
    first = "the first --sr or --model" if finished else "the first"
    group = parser.add_argument_group(
        "rows",
        f"{begin} a row, in this order; options behind a --model are that row's, those before {first} are every "
        "model's",
    )
    if finished:
        group.add_argument(
            "--sr", action=_Begin, type=Path, metavar="DIR", help="finished results, called as the LQ or HQ pictures"
        )
    group.add_argument(NAME, metavar="TEXT", help="of the row that it stands behind (the folder's or the file's)")
    sampling_options.add_to(parser, exclusive=False)
    sampling_options.add_tiles(parser)
    model_options.add_to(parser, model_action=_Begin)


def defaults() -> dict[str, Any]:
    """Options of a row, and what they are where nobody says."""
    parser = argparse.ArgumentParser(add_help=False)
    sampling_options.add_to(parser, exclusive=False)
    sampling_options.add_tiles(parser)
    model_options.add_to(parser)
    parser.add_argument(NAME)
    found = vars(parser.parse_args([]))
    del found["model"]
    return found


class _Begin(argparse.Action):
    """Ends the row before it and begins one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        segments = _segments(namespace)
        segments[-1].values = _current(namespace)
        for name, value in segments[0].values.items():
            # A name is one row's.
            setattr(namespace, name, None if name == "name" else copy.copy(value))
        namespace.segments = [*segments, Segment(self.dest, values)]


def _segments(namespace: argparse.Namespace) -> list[Segment]:
    found: list[Segment] | None = getattr(namespace, "segments", None)
    return found or [Segment("all")]


def _current(namespace: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(namespace, name) for name in defaults()}


@dataclass
class Asked:
    """A row that is asked for.

    Attributes:
        kind: ``"folder"`` or ``"model"``.
        name: unlike any other row's.
        folder: of finished results.
        args: of a model, as ``upscale`` has them.
    """

    kind: str
    name: str
    folder: Path | None = None
    args: argparse.Namespace | None = None


def asked(args: argparse.Namespace, taken: Sequence[str]) -> list[Asked]:
    """The rows of a command line; nano where none is asked for. Wrong usage ends the program.

    Args:
        taken: names of rows that are there whatever is asked for.
    """
    segments = _segments(args)
    segments[-1].values = _current(args)
    common, wrong = segments[0].values, args.wrong_usage
    plain = defaults()
    if common["name"] is not None and len(segments) > 1:
        wrong(f"{NAME} stands behind the --model or --sr that it names")
    found: list[tuple[str, str | None, Path | None, dict[str, Any]]] = []
    for segment in segments[1:]:
        named = segment.values["name"]
        if segment.kind == "model":
            found.append(("model", named, segment.value, segment.values))
            continue
        foreign = [k for k, v in segment.values.items() if k != "name" and v != common[k]]
        if foreign and segment.values["base"] == common["base"]:
            option = next(iter(foreign)).replace("_", "-")
            wrong(f"--{option} means nothing to finished results, --sr {segment.value}: put it behind a --model")
        found.append(("folder", named, segment.value, {}))
        if foreign:
            # A model that is given by its parts only.
            found.append(("model", None, None, segment.values))
    models = [row for row in found if row[0] == "model"]
    given = {k: v for k, v in common.items() if v != plain[k] and k != "name"}
    if not models and (common["base"] is not None or not found):
        found.append(("model", common["name"] if not found else None, None, common))
    elif not models and given:
        option = next(iter(given)).replace("_", "-")
        wrong(f"--{option} means nothing to finished results: give --model too, or leave it out")
    rows = list(_rows(found, args))
    _give_names(rows, found, taken, plain)
    for row in rows:
        if row.args is not None:
            _check(row.args)
    return rows


def _rows(found: Sequence[tuple[Any, ...]], args: argparse.Namespace) -> Iterator[Asked]:
    for kind, name, value, values in found:
        if kind == "folder":
            yield Asked("folder", name or value.resolve().name or str(value), value)
        else:
            own = argparse.Namespace(**{**vars(args), **values, "model": value})
            own.wrong_usage = args.wrong_usage
            yield Asked("model", name or _called(own), args=own)


def _called(args: argparse.Namespace) -> str:
    from ...restorers.given import SHORT_NAME

    path = args.model or args.base
    if path is None or str(path) == SHORT_NAME:
        return SHORT_NAME
    return path.stem if path.suffix and not path.is_dir() else path.resolve().name


def _give_names(
    rows: list[Asked], found: Sequence[tuple[Any, ...]], taken: Sequence[str], plain: dict[str, Any]
) -> None:
    """No two are the same: those that are say what was asked for, and if that is no help, get a number."""
    from ...batch.names import key

    def doubles() -> set[str]:
        names = [key(row.name) for row in rows] + [key(name) for name in taken]
        return {name for name in names if names.count(name) > 1}

    same = doubles()
    for row, (kind, name, _, values) in zip(rows, found, strict=True):
        if kind == "model" and name is None and key(row.name) in same:
            row.name = " ".join([row.name, *_told(values, plain)])
    for i, row in enumerate(rows):
        number, before = 2, {key(name) for name in (*taken, *(r.name for r in rows[:i]))}
        body = row.name
        while key(row.name) in before:
            row.name, number = f"{body} ({number})", number + 1


def _told(values: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    """Options that were given, in a few words."""
    words = []
    for name, value in values.items():
        if value == plain[name] or name == "name":
            continue
        short = name.replace("_", "-")
        if value is True:
            words.append(short)
        elif name == "steps":
            words.append(f"{value} steps")
        else:
            shown = [Path(str(v)).stem for v in value] if isinstance(value, list) else [_short(value)]
            words.append(f"{short} {'+'.join(shown)}")
    return words


def _short(value: Any) -> str:
    return value.stem if isinstance(value, Path) else str(value)


def _check(args: argparse.Namespace) -> None:
    """What does not go together, before any file is looked at."""
    once = sampling_options.one_step(args)
    check: Callable[[str], Any] = args.wrong_usage
    if text := sampling_options.contradiction(args) or model_options.wrong_usage(args, once):
        check(text)
    sampling_options.own(args)
