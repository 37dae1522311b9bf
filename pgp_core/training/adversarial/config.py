"""``[adversarial]`` of a configuration, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..tables import limits

#: Pixels that the second of two shifted passes is moved by, right and down, and those left out at its borders.
MOVE, BORDER = 2, 8


@dataclass(frozen=True)
class Adversarial:
    """``[adversarial]`` beside ``[s1]``: discriminators; see :mod:`pgp_core.training.adversarial`.

    Attributes:
        heads, pixels: how much projected heads and the U-Net discriminator count; 0: there is none.
        weights: what those two are: with ``pull`` shares of the other terms' pull at the picture, with ``fixed`` the
            losses' own weights.
        alone: steps at the beginning in which the discriminators learn and the model does not.
        ramp: steps in which the weights rise after that.
        lr, betas: of the discriminators' Adam.
        width: channels of the U-Net.
        unshuffle: pixels a side that it sees in one position.
    """

    heads: float = field(default=0.35, metadata=limits(at_least=0))
    pixels: float = field(default=0.35, metadata=limits(at_least=0))
    weights: str = field(default="pull", metadata=limits(one_of=("pull", "fixed")))
    alone: int = field(default=40, metadata=limits(at_least=0))
    ramp: int = field(default=100, metadata=limits(at_least=0))
    lr: float = field(default=2e-4, metadata=limits(above=0))
    betas: tuple[float, float] = field(default=(0.5, 0.99), metadata=limits(at_least=0, at_most=0.99999999))
    width: int = field(default=32, metadata=limits(at_least=1, at_most=1024))
    unshuffle: int = field(default=2, metadata=limits(at_least=1, at_most=2))


def smallest(grid: int) -> int:
    """The least side of a crop whose shifted pass leaves something to compare.

    Args:
        grid: pixels that a side must be a multiple of.
    """
    return -(-(2 * BORDER + 1) // grid) * grid + grid


def not_fitting(
    adversarial: Adversarial | None, distils: bool, shifted: bool, steps: int, patch: int, grid: int
) -> str:
    """What is wrong with a run's settings, empty for nothing.

    Args:
        distils: whether there is ``[s1]``.
        shifted: whether its loss between shifted passes has a weight.
        steps, patch, grid: of the run, its crops, and its model.
    """
    if shifted and patch < smallest(grid):
        return (
            f"data.patch must be at least {smallest(grid)} for s1.shifted, which leaves out a crop's borders, "
            f"not {patch}"
        )
    if adversarial is None:
        return ""
    if not distils:
        return "[adversarial] goes with [s1]: discriminators look at what one step makes"
    if not adversarial.heads and not adversarial.pixels:
        return "[adversarial] has no discriminator: adversarial.heads and adversarial.pixels are both 0"
    if adversarial.alone >= steps:
        return (
            f"adversarial.alone must be less than run.steps, {steps}, not {adversarial.alone}: the model would learn "
            "nothing"
        )
    return ""
