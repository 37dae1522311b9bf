"""Tiles in groups by difficulty: easy ones begin late (PatchScaler's patch-adaptive group sampling, Liu et al., 2024).

All tiles share one ladder of noise levels. As long as the sampler is above the level at which a tile begins, the model
is not called for it, and its denoised latent is taken to be the coarse latent ``y0``. A sampler that is told so walks
along ``y0 + sigma * noise``: when its turn comes the tile is where it would be had it begun there. So the step counts
differ by themselves, with any sampler, and the last steps are common to all tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .. import schedule
from ..errors import PGPError
from ..number import number
from .grid import STEP, Tile, grid

EASY, MEDIUM, HARD = range(3)
#: Below this difficulty a tile is easy whatever its rank: a flat picture has no hard part.
FLAT = 0.05
#: Noise levels of a model and of a ladder are computed in different ways, and so differ by rounding.
_SAME = 1e-4


@dataclass(frozen=True)
class Split:
    """Where the groups part.

    Attributes:
        easy, hard: shares of the tiles, 0 to 1, together at most 1; what is left is medium. By value: the
            difficulties up to which a tile is easy and above which it is hard.
        by: ``"share"`` or ``"value"``.

    Raises:
        PGPError: if these make no sense.
    """

    easy: float = 0.4
    hard: float = 0.3
    by: str = "share"

    def __post_init__(self) -> None:
        if self.by not in ("share", "value"):
            raise PGPError(f"tiles are grouped by share or value, not {self.by!r}")
        for name in ("easy", "hard"):
            number(getattr(self, name), f"{name} is", 0, 1)
        if self.by == "share" and self.easy + self.hard > 1 + 1e-6:
            raise PGPError(f"easy and hard are shares of the same tiles: {self.easy:g} + {self.hard:g} is more than 1")
        if self.by == "value" and self.easy > self.hard:
            raise PGPError(f"tiles up to {self.easy:g} cannot be easy where those above {self.hard:g} are hard")

    def limits(self, scores: Sequence[float]) -> tuple[float, float]:
        """The difficulties up to which a tile is easy, and up to which it is not hard. Equals stay together, with
        the easier."""
        if self.by == "value":
            return self.easy, self.hard
        ranked, n = sorted(scores), len(scores)
        easy, up_to_medium = round(self.easy * n), n - round(self.hard * n)
        low = ranked[easy - 1] if easy else -math.inf
        if self.easy:
            low = max(low, FLAT)
        return low, max(low, ranked[up_to_medium - 1] if up_to_medium else -math.inf)


def start_sigma(share: float) -> float:
    """Noise level at which a share of the timesteps is left, on SDXL's schedule; infinite for all of them.

    Args:
        share: 0 to 1; 0.2 is timestep 200.
    """
    if share >= 1:
        return math.inf
    a = float(schedule.alphas_cumprod()[round(max(0.0, share) * (schedule.TRAIN_STEPS - 1))])
    return ((1 - a) / a) ** 0.5


class Groups:
    """Which tiles begin when, and what stands for them until then.

    Args:
        difficulty: ``(1 or B, 1, h, w)`` in [0, 1], see :func:`.difficulty.difficulty`; of any size, it is resized to
            the latent's.
        y0: ``(1 or B, C, H, W)``, the coarse latent in the model's own scale: the encoded LQ canvas; zeros for a
            model whose latent is the residual.
        split: where the groups part.
        starts: noise levels at which easy and medium tiles begin; hard ones begin with the sampling.
        common: last steps that all tiles share, at least 1.
        overlap: what neighbouring tiles share, in latent positions; a quarter of a tile by default. It is needed to
            know all tiles from one.

    Attributes:
        called, skipped: tiles for which the model was called and was not, summed over calls, since :meth:`begin`.

    Raises:
        PGPError: if sizes do not fit, or easy tiles would begin before medium ones.
    """

    def __init__(
        self,
        difficulty: torch.Tensor,
        y0: torch.Tensor,
        split: Split,
        starts: tuple[float, float],
        common: int = 2,
        overlap: int | None = None,
    ):
        if y0.ndim != 4:
            raise PGPError(f"tiles are grouped for latents of pictures, not of shape {tuple(y0.shape)}")
        number(common, "steps that are common to all tiles:", 1, whole=True)
        if any(math.isnan(s) for s in starts) or not bool(difficulty.isfinite().all()):
            raise PGPError("the difficulty and where tiles begin must be numbers, not NaN or infinity")
        if starts[0] > starts[1]:
            raise PGPError("easy tiles would begin before medium ones: give them the smaller share of the timesteps")
        if difficulty.shape[0] not in (1, y0.shape[0]):
            raise PGPError(
                f"{difficulty.shape[0]} difficulty masks for {y0.shape[0]} pictures: give one, or one per picture"
            )
        self.y0, self.split, self.starts, self.common = y0, split, starts, common
        self.map = fitted(difficulty, y0.shape[-2], y0.shape[-1])
        self.called = self.skipped = 0
        self._overlap, self._least, self._part = overlap, 0.0, slice(None)
        self._limits: dict[tuple[int, tuple[int, int], int | None], tuple[float, float]] = {}

    def begin(self, ladder: Sequence[float], part: tuple[int, int] | None = None) -> None:
        """A sampling run begins: counts are zero, and the last steps of its ladder are common to all.

        Args:
            ladder: the sampler's noise levels, falling. Only one that ends with 0 has the last steps.
            part: first and end of the pictures that are sampled, where it is not the whole batch.
        """
        self.called = self.skipped = 0
        self._part = slice(*part) if part else slice(None)
        levels = [float(s) for s in ladder]
        self._least = 0.0
        if levels and levels[-1] == 0:
            self._least = levels[max(0, len(levels) - 1 - self.common)]

    @property
    def pictures(self) -> int:
        """How many pictures tiles are grouped for; 1 serves any number."""
        return max(self.y0.shape[0], self.map.shape[0])

    def skip(
        self, tile: Tile, sigma: float, like: torch.Tensor, latents: Sequence[int] | None = None
    ) -> torch.Tensor | None:
        """What a tile's denoised latent is taken to be without asking the model.

        A batch is asked for as a whole: it waits as long as its hardest picture may.

        Args:
            tile: of the latent that is sampled.
            sigma: the sampler's noise level.
            like: ``(k B, C, height, width)``, what the model would be given: ``k`` chunks, for the positive and the
                negative prompt, of the same pictures.
            latents: numbers of these pictures among those that are sampled; None for all of them in their order.

        Returns:
            the tile's part of ``y0`` in the shape, dtype and device of ``like``; None when the model is to be called.

        Raises:
            PGPError: if the latent is not as large as ``y0``, or of another number of pictures.
        """
        if tile.of != tuple(self.y0.shape[-2:]):
            raise PGPError(
                f"tiles were grouped for a latent of {self.y0.shape[-1]}x{self.y0.shape[-2]}, "
                f"but one of {tile.of[1]}x{tile.of[0]} is sampled: connect the one that is sampled"
            )
        if tile.whole or sigma <= max(self.start(tile), self._least) * (1 + _SAME):
            self.called += 1
            return None
        coarse = tile.crop(self._of_part(self.y0))
        if latents is not None and self.y0.shape[0] > 1:
            coarse = coarse[list(latents)]
        if like.shape[0] % coarse.shape[0] or like.shape[1:] != coarse.shape[1:]:
            raise PGPError(
                f"tiles were grouped for a latent of shape {tuple(coarse.shape)}, not {tuple(like.shape)}: "
                "connect the one that is sampled"
            )
        self.skipped += 1
        return coarse.to(like).repeat(like.shape[0] // coarse.shape[0], 1, 1, 1)

    def start(self, tile: Tile) -> float:
        """Noise level at which a tile begins, the common steps aside."""
        return (*self.starts, math.inf)[self.group(tile)]

    def group(self, tile: Tile) -> int:
        """``EASY``, ``MEDIUM`` or ``HARD``; a tile that is the whole latent is hard."""
        if tile.whole:
            return HARD
        side = max(n for n, of in zip((tile.height, tile.width), tile.of, strict=True) if n < of) // STEP * STEP
        key = side, tile.of, self._part.start
        if key not in self._limits:
            overlap = side // 4 if self._overlap is None else min(self._overlap, side // 2)
            self._limits[key] = self.split.limits([self.score(t) for t in grid(*tile.of, side, overlap // STEP * STEP)])
        low, high = self._limits[key]
        score = self.score(tile)
        return EASY if score <= low else MEDIUM if score <= high else HARD

    def score(self, tile: Tile) -> float:
        """Difficulty of a tile, 0 to 1: the quadratic mean of the map within it; of a batch, the hardest picture's.

        A plain mean loses a small hard thing in an easy tile. Of the hardest 2 % of six photographs, the easiest 40 %
        of tiles by this score hold as little as by any other that was tried (10.6 %; mean 10.9 %, 90th percentile
        11.1 %, largest value 12.9 %), at a mean error within a tenth of the plain mean's.
        """
        return float(tile.crop(self._of_part(self.map)).square().mean((-3, -2, -1)).max().sqrt())

    def _of_part(self, x: torch.Tensor) -> torch.Tensor:
        """What belongs to the pictures that are sampled."""
        return x if x.shape[0] == 1 else x[self._part]

    @property
    def saved(self) -> float:
        """Share of the calls that were spared since :meth:`begin`."""
        return self.skipped / max(1, self.called + self.skipped)


def fitted(difficulty: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A difficulty map or mask at a latent's size.

    Args:
        difficulty: ``(B, 1, h, w)``.

    Returns:
        ``(B, 1, height, width)`` float32 in [0, 1] on the CPU; what is no number is 0.

    Raises:
        PGPError: if its proportions are not the latent's.
    """
    h, w = difficulty.shape[-2:]
    # Sizes are rounded to cells and to latent positions: a side may be off by one either way.
    if abs(h * width / w - height) > 1 + 0.02 * height and abs(w * height / h - width) > 1 + 0.02 * width:
        raise PGPError(
            f"a difficulty mask of {w}x{h} does not have the proportions of the latent ({width}x{height}): "
            "make it of the canvas that is encoded"
        )
    x = difficulty.detach().cpu().float().nan_to_num(0).clamp(0, 1)
    if (h, w) != (height, width):
        x = F.interpolate(x, (height, width), mode="bilinear", align_corners=False, antialias=h > height)
    return x.clamp(0, 1)
