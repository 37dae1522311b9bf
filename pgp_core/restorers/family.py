"""A family of restorers: what is known of it before a file is read, and how one is made of files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..images.frames import Frame
from ..progress import Say
from .given import Given
from .recipe import Recipe, decide

if TYPE_CHECKING:
    import torch

    from ..files.weights import WeightsFile
    from .restorer import Restorer

_log = logging.getLogger(__name__)

#: What every family takes: nothing of it belongs to a kind of model.
_ALWAYS = frozenset({"model", "one_step", "cfg"})


@dataclass(frozen=True)
class Family:
    """One family. All of it but the functions reads without PyTorch, and they import what they need when called.

    Attributes:
        name: as ``pgp-diffsr models`` lists it, and as reports and canvases call it.
        title: for people.
        files: what its files look like, in words.
        wants: what else a restorer of it is made of, a line each.
        frame: what canvases it takes.
        steps: how it is meant to be used in steps; None where it has one step only.
        once: how it is meant to be used in one step; None where it has steps only.
        takes: names of :class:`Given` that mean something to it, beside model, one_step and cfg.
        licence: of the weights.
        published: where their authors publish them.
        topologies: of the UNets that it is made for, by the names that plans have.
        recognise: whether a file is the family's, from names, shapes and metadata alone; in words what it is, or None.
        wrong: what does not go together in what is given, in the words of the command line, or None.
        missing: what a restorer still needs beside what is given, a line each.
        load: read the parts.
        bundled: it comes with this package, and is what is used where nothing is given.
        prefers_one_step: what it does where nobody says.
        guided: whether guidance of these parts (see :data:`pgp_core.guidance.spec.PARTS`; none for no guidance) makes a
            restorer of this family of its UNet.
        factor: pixels of a canvas per latent position.
        residual: its latent is the residual to the LQ's own, which is added to what is sampled.
        core: names of ComfyUI's model classes that are of it where nothing else is known.
        canvas: what its canvases are called where one is chosen by name; families whose frame is the same share it.
    """

    name: str
    title: str
    files: str
    wants: tuple[str, ...]
    frame: Frame
    takes: frozenset[str]
    licence: str
    published: str
    topologies: tuple[str, ...]
    recognise: Callable[[WeightsFile, Given], str | None]
    load: Callable[[Given, torch.device, Say], Restorer]
    wrong: Callable[[Given], str | None] = lambda _: None
    missing: Callable[[Given], tuple[str, ...]] = lambda _: ()
    steps: Recipe | None = None
    once: Recipe | None = None
    bundled: bool = False
    prefers_one_step: bool = False
    guided: Callable[[frozenset[str]], bool] = lambda _: True
    factor: int = 8
    residual: bool = False
    core: tuple[str, ...] = ()
    canvas: str = ""

    def __post_init__(self) -> None:
        assert self.steps or self.once, f"{self.name} has no recipe"
        if not self.canvas:
            object.__setattr__(self, "canvas", self.name)

    def recipe(self, one_step: bool | None = None, *answers: dict[str, Any]) -> Recipe:
        """How it is meant to be used, see :func:`pgp_core.restorers.recipe.decide`.

        Args:
            one_step: None for what the family prefers.
            answers: the file's, then the user's.
        """
        once = self.prefers_one_step if one_step is None else one_step
        chosen = (self.once or self.steps) if once else (self.steps or self.once)
        assert chosen is not None
        return decide(chosen, *answers)

    def foreign(self, given: Given) -> str | None:
        """What is given that means nothing to this family, by its name in :class:`Given`, or None."""
        return next(iter(sorted(given.named - self.takes - _ALWAYS)), None)


@dataclass(frozen=True)
class Found:
    """A model that was looked at, but not yet read.

    Attributes:
        family: whose it is.
        given: what it is made of.
        what: what the file is, in words.
    """

    family: Family
    given: Given
    what: str

    @property
    def needs(self) -> tuple[str, ...]:
        """What is still missing, a line each."""
        return self.family.missing(self.given)

    def load(self, device: torch.device | str = "cpu", say: Say = _log.warning) -> Restorer:
        """Read the parts. Nothing is fetched: what is not on this machine is an error.

        Args:
            say: told in one line what is worth knowing and no error.

        Raises:
            WrongUsage: if what is given does not go together.
            PGPError: if a part is missing, damaged, of another kind, or does not fit the others.
        """
        import torch

        from ..errors import WrongUsage

        if wrong := self.family.wrong(self.given) or self.given.contradiction():
            raise WrongUsage(wrong)
        return self.family.load(self.given, torch.device(device), say)
