"""What a run's ``model.kind`` means: the families that can be trained are registered here."""

from __future__ import annotations

from dataclasses import dataclass

from ..restorers.family import Family
from ..restorers.nano.family import NANO
from ..restorers.nano.model import RESIDUAL_STD
from ..restorers.sdxl.family import PGP_DIFFSR


@dataclass(frozen=True)
class Kind:
    """A kind of model in training.

    Attributes:
        family: of what comes of it.
        full_size: it has a VAE, text encoders and captions, begins with files of others, and is meant for a card;
            otherwise everything of it is in the run's own files.
        factor: pixels of a crop per latent position.
        grid: crops have sides that are multiples of this many pixels.
        tokens: of a prompt.
        latent_std: see :func:`pgp_core.schedule.start_gain`.
    """

    family: Family
    full_size: bool
    factor: int
    grid: int
    tokens: int
    latent_std: float = 0.0


KINDS = {
    "nano": Kind(NANO, full_size=False, factor=4, grid=8, tokens=8, latent_std=RESIDUAL_STD),
    "sdxl": Kind(PGP_DIFFSR, full_size=True, factor=8, grid=16, tokens=77),
}
