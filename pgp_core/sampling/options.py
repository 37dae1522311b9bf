"""How one picture is sampled: what :mod:`pgp_core.restorers.recipe` decided, and what belongs to this run alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import schedule
from ..errors import PGPError
from ..images.wrap import Wrap
from ..number import MAX_SEED, number
from ..tiling import Tiling
from .rules import SPACINGS, STARTS


@dataclass(frozen=True)
class SampleOptions:
    """How to sample.

    Attributes:
        steps: Euler steps.
        cfg: classifier-free guidance scale; 1 makes one UNet call a step, else two in one batch.
        seed: of the start noise, drawn on the CPU in float32, so that it is the same on every device and
            equals ComfyUI's for the same seed and shape.
        start: ``"noise"`` starts from noise alone; ``"lq"`` from the LQ latent with noise added; ``"lr"`` as
            FaithDiff does, from noise with a little of the LQ latent (see
            :func:`pgp_core.sampling.euler.euler`).
        denoise: share of the noise range that an ``"lq"`` start goes through, 0 to 1 (ComfyUI's "denoise").
        spacing: of the timesteps, one of :data:`pgp_core.sampling.rules.SPACINGS`; None as the model's files say.
        strength: of the guidance, 0 to 1.
        start_percent, end_percent: part of the sampling in which the guidance works, as shares of the
            timesteps from noise to picture.
        tiling: what is done with a latent that is too large for one UNet call.
        wrap: one of :data:`pgp_core.choices.WRAPS`: along which axes the canvas repeats. It then has
            the margins that :func:`pgp_core.images.canvas.canvas` makes.
    """

    steps: int = 20
    cfg: float = 5.0
    seed: int = 0
    start: str = "noise"
    denoise: float = 1.0
    spacing: str | None = None
    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    tiling: Tiling = field(default_factory=Tiling)
    wrap: str = "none"

    def __post_init__(self) -> None:
        number(self.steps, "steps must be", 1, schedule.TRAIN_STEPS, whole=True)
        number(self.cfg, "cfg must be", 0, 100)
        number(self.seed, "the seed must be", 0, MAX_SEED, whole=True)
        if self.start not in STARTS:
            raise PGPError(f"start is one of {', '.join(STARTS)}, not {self.start!r}")
        if self.spacing not in (None, *SPACINGS):
            raise PGPError(f"spacing is one of {', '.join(SPACINGS)}, not {self.spacing!r}")
        Wrap(self.wrap)
        number(self.denoise, "denoise must be", above=0, high=1)
        number(self.strength, "strength must be", 0, 1)
        for name in ("start_percent", "end_percent"):
            number(getattr(self, name), "the guidance's range must be within", 0, 1)
        if self.start_percent > self.end_percent:
            raise PGPError(
                f"the guidance's range must be within 0 to 1, not {self.start_percent} to {self.end_percent}"
            )
