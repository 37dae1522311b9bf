"""The registry: which families there are, and which of them a file belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import CheckpointError, PGPError
from ..images.frames import Frame
from .family import Family, Found
from .given import Given

if TYPE_CHECKING:
    from ..files.weights import WeightsFile

#: Folders beside this file whose ``family`` module has ``FAMILIES``; the first that recognises a file has it.
_FOLDERS = ("nano", "sdxl")

FAMILIES: tuple[Family, ...] = tuple(
    f for name in _FOLDERS for f in import_module(f".{name}.family", __package__).FAMILIES
)


#: What canvases there are, by the names that are chosen among. They have the result's size: what enlarges by itself is
#: no MODEL of a graph with a canvas in it.
CANVASES: dict[str, Frame] = {f.canvas: f.frame for f in FAMILIES if f.frame.enlarges == 1}


def family_named(name: str) -> Family:
    """A family by its name.

    Raises:
        PGPError: if there is none.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    raise PGPError(f"there is no family {name!r}; known are {', '.join(f.name for f in FAMILIES)}")


def family_of_unet(topology: str, parts: frozenset[str] = frozenset()) -> Family:
    """The family of a UNet and its guidance.

    Args:
        topology: of the UNet.
        parts: of the guidance, see :data:`pgp_core.guidance.spec.PARTS`; none where there is none.

    Raises:
        PGPError: if there is none.
    """
    for family in FAMILIES:
        if topology in family.topologies and family.guided(parts):
            return family
    raise PGPError(f"no family here is made of a UNet of {topology}")


def bundled() -> Family:
    """The family that comes with this package."""
    return next(f for f in FAMILIES if f.bundled)


def find(given: Given) -> Found:
    """The family of what is given. Names and shapes are read, no weights.

    Raises:
        PGPError: if a file is not there, or is no restorer, saying what it is.
    """
    if given.bundled:
        family = bundled()
        return Found(family, given, f"{family.title}, bundled")
    given.check_files()
    with _opened(given) as file:
        if found := recognised(file, given):
            return found
        raise no_restorer(file)


def recognised(file: WeightsFile, given: Given) -> Found | None:
    """The family that an open file with a UNet is of, with what is given beside it; or None."""
    for family in FAMILIES:
        if what := family.recognise(file, given):
            return Found(family, given, what)
    return None


@contextmanager
def _opened(given: Given) -> Iterator[WeightsFile]:
    """The file with the UNet."""
    from ..files import diffusers_folder
    from ..files.weights import open_weights

    path = given.model or given.base
    if path is None:
        raise CheckpointError("there is no UNet: give --model FILE or --base DIR")
    if given.model is None and diffusers_folder.is_pipeline(path):
        diffusers_folder.component(path, "unet", "give the UNet with --model")
    with open_weights(path) as file:
        yield file


def no_restorer(file: WeightsFile) -> PGPError:
    """What to say of a file that no family recognises: what it is, and what is needed."""
    from ..unet.inspect import inspect_unet

    try:
        inspect_unet(file)
    except PGPError as e:
        return e
    return CheckpointError(f"{file.name} holds a UNet that none of the known restorers has")
