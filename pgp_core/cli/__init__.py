"""``pgp-diffsr``: the command line. People read stderr, scripts read JSON lines on stdout (``--json``)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__
from ..errors import Cancelled, PGPError
from ..files.boundary import first_line
from ..visible import visible
from . import analyze, bench, convert, evaluate, export, guidance, models, plan, plot, train, upscale
from .output import finish_streams, lines_of_others, plain, prepare_streams, say, write_out

#: Characters of one argument that a message about wrong usage repeats.
_SHOWN = 200


class Parser(argparse.ArgumentParser):
    """One whose messages hold no character that a terminal obeys, and are of sane length."""

    #: Python's own would be written out, since they are such characters too.
    color = False

    def error(self, message: str) -> NoReturn:
        """Wrong usage: what argparse says, and exit status 2."""
        self.print_usage(sys.stderr)
        if len(message) > 3 * _SHOWN:
            message = f"{message[:_SHOWN]} … {message[-_SHOWN:]}"
        plain(f"{self.prog}: error: {message}")
        raise SystemExit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        if message and file is sys.stderr:
            for line in message.splitlines():
                plain(line)
        elif message:
            write_out(message)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(prog="pgp-diffsr", description="Super-resolution with PGP-DiffSR.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (upscale, models, convert, export, guidance, plan, train, evaluate, analyze, plot, bench):
        module.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run. Exit status 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 nobody reads the output any more."""
    # PyTorch's threads (GNU's OpenMP, on Linux) wait for each other turning round at full speed, unless told otherwise
    # before it is imported. Beside any other program that made a picture of nano take 2 to 20 s instead of 0.8.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    prepare_streams()
    lines_of_others()
    parser = build_parser()
    given = sys.argv[1:] if argv is None else list(argv)
    for text in given:
        if "\0" in text:
            parser.error(f"no argument can hold a null character: {text}")
    args = parser.parse_args(given)
    args.typed = given
    status = _run(args)
    finish_streams()
    return status


def _run(args: argparse.Namespace) -> int:
    try:
        return int(args.run(args))
    except (KeyboardInterrupt, Cancelled) as e:
        if args.debug:
            raise
        say(str(e) or "interrupted; nothing half-written was left")
        return 130
    except PGPError as e:
        if args.debug:
            raise
        say(f"error: {e}")
        return 1
    except ModuleNotFoundError as e:
        if args.debug or (e.name or "").split(".")[0] == "pgp_core":
            raise
        name = (e.name or "").partition(".")[0]
        say(f'error: {name} is not installed; run: pip install "pgp-diffsr[{_extra(args.command, name)}]"')
        return 1
    except Exception as e:
        if args.debug:
            raise
        say(f"error: {_unforeseen(e)}")
        return 1


def _unforeseen(error: Exception) -> Any:
    """One line for an error that nothing else caught; as an error of ours, which names no home folder."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return PGPError("there is not enough memory: give smaller tiles, a smaller size or another --device")
    if isinstance(error, OSError) and error.strerror:
        return PGPError(f"{error.strerror}{'' if error.filename is None else f': {visible(error.filename)}'}")
    return PGPError(
        f"{type(error).__name__}: {first_line(error)}; this is a mistake of pgp-diffsr: run with --debug and report it"
    )


def _extra(command: str, library: str) -> str:
    """The extra that has a library which a command lacks."""
    if command in ("train", "eval"):
        return command
    return {"transformers": "prompt", "matplotlib": "plot"}.get(library, "cli")
