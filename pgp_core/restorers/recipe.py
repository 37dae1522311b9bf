"""How a model is meant to be used, and the one place that decides what a setting is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ..choices import MAX_FIDELITY
from ..errors import PGPError
from ..number import number
from ..sampling.rules import EULER, RULES, SPACINGS, STARTS

if TYPE_CHECKING:
    from ..sampling.options import SampleOptions


@dataclass(frozen=True)
class Recipe:
    """How a model is meant to be used. It reads without PyTorch.

    Attributes:
        steps: of Euler; 1 for rules of one call.
        cfg: classifier-free guidance scale; 1 makes one UNet call a step.
        start: one of :data:`pgp_core.sampling.rules.STARTS`; read by Euler's rule.
        spacing: of Euler's timesteps, one of :data:`pgp_core.sampling.rules.SPACINGS`; None as the files say.
        denoise: share of the noise range that an ``"lq"`` start goes through.
        rule: one of :data:`pgp_core.sampling.rules.RULES`.
        timestep: at which a rule of one call calls the UNet; None for Euler's.
        tile: side of the tiles in pixels of the canvas: what a model is meant to do at once, for one that is worse at
            larger sizes; 0 for what fits and is fast.
        overlap: of neighbouring tiles in pixels of the canvas.
        color_fix: one of :data:`pgp_core.choices.COLOR_FIXES`.
        fidelity: pixels of the result from which upwards detail comes from the input, see
            :mod:`pgp_core.images.fidelity`; 0 is off.
        natural: of one step of a model that has two LoRAs for it: 0 is the faithful one, 1 the natural one, between
            them are weights between theirs; 0 for a model that has one.
        prompt, negative_prompt: what the model is told where nobody says.

    Raises:
        PGPError: if a word is none of those that are known, or the fidelity or natural is out of its range.
    """

    steps: int = 20
    cfg: float = 5.0
    start: str = "noise"
    spacing: str | None = None
    denoise: float = 0.5
    rule: str = EULER
    timestep: int | None = None
    tile: int = 0
    overlap: int = 128
    color_fix: str = "wavelet"
    fidelity: float = 0.0
    natural: float = 0.0
    prompt: str = ""
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        for name, known in (("rule", RULES), ("start", STARTS), ("spacing", (None, *SPACINGS))):
            if getattr(self, name) not in known:
                raise PGPError(f"{name} is one of {', '.join(filter(None, known))}, not {getattr(self, name)!r}")
        number(self.fidelity, "the fidelity is", 0, MAX_FIDELITY, unit="pixels (0 is off)")
        number(self.natural, "natural must be", 0, 1)

    @property
    def one_step(self) -> bool:
        """Whether the UNet is called once."""
        return self.rule != EULER

    @property
    def noise(self) -> float:
        """The share of the noise range that sampling goes through; all of it, but for an ``"lq"`` start."""
        return self.denoise if self.start == "lq" else 1.0

    def options(self, blend: str = "cosine", phase: str = "tile", **others: Any) -> SampleOptions:
        """How one picture is sampled.

        Args:
            blend, phase: of tiles, see :class:`pgp_core.tiling.Tiling`.
            others: what belongs to this run alone, such as the seed.

        Raises:
            PGPError: if a number is out of its range.
        """
        from ..sampling.options import SampleOptions
        from ..tiling import Tiling

        said = {
            "steps": self.steps,
            "cfg": self.cfg,
            "start": self.start,
            "denoise": self.noise,
            "spacing": self.spacing,
        }
        return SampleOptions(**{**said, "tiling": Tiling(self.tile, self.overlap, blend, phase), **others})


_NAMES = frozenset(f.name for f in fields(Recipe))


def decide(recipe: Recipe, *answers: Mapping[str, Any]) -> Recipe:
    """What each setting is: the family's, unless the file says otherwise, unless the user does.

    Everybody who samples asks it: the command line, the nodes, sample pictures of training, evaluation.

    Args:
        recipe: the family's.
        answers: the file's, then the user's; a later one goes before. None is no answer, and what is no setting of a
            recipe is passed over.
    """
    for answer in answers:
        recipe = replace(recipe, **{k: v for k, v in answer.items() if k in _NAMES and v is not None})
    return recipe
