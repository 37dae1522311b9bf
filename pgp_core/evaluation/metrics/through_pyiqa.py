"""MUSIQ, MANIQA and CLIP-IQA by pyiqa, where the user has it installed.

It is what papers measure them with, under terms that forbid commercial use, so it is no dependency. Its weights are its
own business: it finds and fetches them itself, the latter only where the caller lets it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module, metadata
from typing import Any

import torch

from ...errors import PGPError
from ...files.boundary import first_line
from .offline import offline
from .pictures import Array, picture

#: Our name to the one that the papers' tables have of pyiqa.
NAMES = {
    "musiq": "musiq",
    "maniqa": "maniqa-pipal",
    "clipiqa+": "clipiqa+_vitL14_512",
    "clipiqa": "clipiqa",
}

#: Some of its metrics draw crops: the same ones for every picture and run.
_SEED = 0


def version() -> str | None:
    """Of the pyiqa that is installed; None without one."""
    try:
        return metadata.version("pyiqa")
    except metadata.PackageNotFoundError:
        return None


def licence() -> str:
    """One line, with the version if there is one."""
    found = version()
    terms = "PolyForm Noncommercial 1.0.0 from 0.1.16 on, CC BY-NC-SA 4.0 and NTU S-Lab 1.0 before"
    return f"pyiqa{f' {found}' if found else ''} has a licence of its own, for noncommercial use only ({terms})"


def load(name: str, device: torch.device, download: bool) -> Callable[[Array], float]:
    """A metric of a picture alone.

    Raises:
        PGPError: if pyiqa is not installed, or cannot make it of what is on this machine.
    """
    theirs = NAMES[name]
    with _alone(download):
        try:
            pyiqa = import_module("pyiqa")
        # A library of this size fails in many ways where its own dependencies do not fit.
        except Exception as e:
            if isinstance(e, ModuleNotFoundError) and e.name == "pyiqa":
                raise PGPError(
                    f"{name} is measured by pyiqa, which is not installed: pip install pyiqa; {licence()}"
                ) from None
            raise PGPError(f"{name} is measured by pyiqa, which cannot be imported ({first_line(e)})") from None
        try:
            network: Any = pyiqa.create_metric(theirs, device=device)
        except Exception as e:
            advice = "" if download else ": --download lets it fetch its weights"
            raise PGPError(f"pyiqa cannot load {theirs} from this machine ({first_line(e)}){advice}") from None

    def measure(rgb: Array) -> float:
        from .networks import exactly, tensor

        with _alone(download), exactly(), torch.random.fork_rng(_cuda(device)):
            torch.manual_seed(_SEED)
            return float(network(tensor(picture(rgb), device)))

    return measure


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


@contextmanager
def _alone(download: bool) -> Iterator[None]:
    """It prints on stdout, where our own output may be JSON, and downloads."""
    with redirect_stdout(sys.stderr), offline(not download):
        yield
