"""Libraries that only a part of the package needs, imported when that part runs."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import PGPError


def library(module: str, user: str, name: str, extra: str, also: str = "", error: type[PGPError] = PGPError) -> Any:
    """Import a module of a library that may not be installed.

    Args:
        user: what needs it, and ``name``, what people call it: the beginning of the error's sentence.
        extra: of ours that installs it.
        also: a further way to install it.
        error: what is raised.

    Raises:
        PGPError: of the class given, naming the command that installs it.
    """
    try:
        return importlib.import_module(module)
    # OSError: a library in C that its module does not find.
    except (ImportError, OSError) as e:
        raise error(f'{user} needs {name} ({e}): pip install "pgp-diffsr[{extra}]"{also}') from None
