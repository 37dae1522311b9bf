"""Textures that repeat: what lies beyond a border is what lies at the opposite one.

A canvas then has a margin that is taken from the opposite side, and what the model makes of it is, at every step,
replaced by what it makes of the original: so a border's neighbours are the opposite border's, with any number of
steps, in tiles and in the VAE. What lies further off than the margin is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..choices import WRAPS
from ..errors import PGPError

if TYPE_CHECKING:
    import torch

#: Pixels of the margin on each side: a whole overlap of two tiles.
MARGIN = 128
#: What repeats is as many pixels as a multiple of this, so that it is whole in latents halved twice of any model here.
MULTIPLE = 32


@dataclass(frozen=True)
class Wrap:
    """Axes along which a picture repeats, by one of :data:`pgp_core.choices.WRAPS`.

    Raises:
        PGPError: for another name.
    """

    name: str = "none"

    def __post_init__(self) -> None:
        if self.name not in WRAPS:
            raise PGPError(f"a picture repeats along {', '.join(WRAPS[1:])} or {WRAPS[0]}, not {self.name!r}")

    def __bool__(self) -> bool:
        return self.name != "none"

    @property
    def dims(self) -> tuple[int, ...]:
        """The axes of tensors ``(..., H, W)`` along which the picture repeats."""
        return {"none": (), "x": (-1,), "y": (-2,), "both": (-2, -1)}[self.name]

    def around(self, x: torch.Tensor, margin: int) -> torch.Tensor:
        """``(..., H, W)`` with ``margin`` more on each side of the axes, taken from the opposite side."""
        # The size of a result is asked for before PyTorch is there.
        import torch

        for dim in self.dims:
            size = x.shape[dim]
            x = x.index_select(dim, torch.arange(-margin, size + margin, device=x.device) % size)
        return x

    def inner(self, x: torch.Tensor, margin: int) -> torch.Tensor:
        """What repeats, without the margins; a view."""
        for dim in self.dims:
            x = x.narrow(dim, margin, x.shape[dim] - 2 * margin)
        return x

    def repeated(self, x: torch.Tensor, margin: int) -> torch.Tensor:
        """The same with its margins made of what repeats; ``x`` itself where nothing does, or there is no room for
        margins."""
        if not self or any(x.shape[dim] <= 2 * margin for dim in self.dims):
            return x
        return self.around(self.inner(x, margin), margin)


#: For what repeats nowhere.
PLAIN = Wrap()


def whole(size: int) -> int:
    """The least number of pixels that can repeat and is not below ``size``."""
    return -(-size // MULTIPLE) * MULTIPLE
