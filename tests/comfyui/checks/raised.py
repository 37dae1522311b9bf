"""What actions raise, as data that goes back to the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pgp_pack.pgp_core.errors import PGPError


def raised(action: Callable[[], Any]) -> list[str]:
    """Class and message of what an action raises; empty if it raises nothing."""
    try:
        action()
    except Exception as e:
        return [type(e).__name__, str(e)]
    return []


def answers(cases: Mapping[str, Callable[[], Any]]) -> dict[str, str | None]:
    """Messages with which cases are refused; None for those that are not. What is no error of ours is raised."""
    found: dict[str, str | None] = {}
    for name, case in cases.items():
        try:
            case()
            found[name] = None
        except PGPError as e:
            found[name] = str(e)
    return found
