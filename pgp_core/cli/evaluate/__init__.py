"""``pgp-diffsr eval``: how good restorers are, on a user's own pictures and in the tables of the documentation."""

from __future__ import annotations

from typing import Any

from . import efficiency, nano, pairs, pictures

#: Each registers its subcommands.
_MODULES = (pairs, pictures, efficiency, nano)


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("eval", help="measure how good restorers are")
    tables = parser.add_subparsers(dest="table", required=True, metavar="WHAT")
    for module in _MODULES:
        module.add_to(tables)
