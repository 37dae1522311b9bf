"""Libraries that only the evaluation needs, imported when it runs."""

from __future__ import annotations

import importlib
from types import ModuleType

from ..errors import PGPError


def extra(module: str) -> ModuleType:
    """Import a module of scikit-image or SciPy.

    Raises:
        PGPError: naming the command that installs them.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise PGPError(f'the evaluation needs scikit-image and SciPy ({e}): pip install "pgp-diffsr[eval]"') from None
