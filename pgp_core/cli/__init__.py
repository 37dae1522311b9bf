"""``pgp-diffsr``: the command line. People read stderr, scripts read JSON lines on stdout (``--json``)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .. import __version__
from ..errors import Cancelled, PGPError
from . import analyze, bench, convert, evaluate, export, guidance, plan, plot, train, upscale
from .output import say


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="pgp-diffsr", description="Super-resolution with PGP-DiffSR.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (upscale, convert, export, guidance, plan, train, evaluate, analyze, plot, bench):
        module.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run. Exit status 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    args = build_parser().parse_args(argv)
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
        say(f'error: {e.name} is not installed; run: pip install "pgp-diffsr[{_extra(args.command, e.name)}]"')
        return 1


def _extra(command: str, module: str | None) -> str:
    if command == "upscale" and module == "transformers":
        return "prompt"
    return {"train": "train", "eval": "eval"}.get(command, "cli")
