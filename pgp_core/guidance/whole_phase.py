"""PEAM's phase exchange over the whole canvas, though the UNet runs in tiles.

The exchange is a Fourier transform over all positions, so a tile by itself gets another result than it has as a part
of the canvas. Here the UNet's features at a site are gathered from all tiles, exchanged at once, and handed out tile by
tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..errors import GuidanceError
from ..tiling import Tile, blended
from .module import fit
from .phase import exchange_phase

#: Channels that are exchanged at a time: a canvas of 512 x 512 positions takes a few hundred megabytes then.
_CHANNELS = 32


class Reached(Exception):  # noqa: N818 - no error: the way out of a UNet
    """Raised at a site whose features are wanted and nothing behind them.

    Attributes:
        features: the UNet's own there, ``(B, C, H, W)``.
    """

    def __init__(self, features: torch.Tensor):
        super().__init__("features of a tile, for the phase exchange over the whole canvas")
        self.features = features


class CanvasPhase:
    """The exchanges of one call for a whole latent.

    Args:
        coarser: by how much a site's features are coarser than the latent.
        rows: of a site and its features' shape over the canvas, what each entry of the batch meets there: as many
            ``(C, H, W)``, see :func:`pgp_core.guidance.acting.in_turn`.
        rest: where features over the canvas are kept; None for where the UNet's are.
        done: called after each tile; may raise, to stop.
        who: how an error begins.
    """

    def __init__(
        self,
        coarser: Callable[[int], int],
        rows: Callable[[int, tuple[int, ...]], Sequence[torch.Tensor]],
        rest: torch.device | None = None,
        done: Callable[[], None] | None = None,
        who: str = "",
    ):
        self._coarser, self._rows, self._rest, self._done, self._who = coarser, rows, rest, done, who
        self._wanted: int | None = None
        self._canvases: dict[int, torch.Tensor] = {}

    def at(self, site: int, tile: Tile, h: torch.Tensor) -> torch.Tensor | None:
        """A tile's features with the phase of the whole canvas, or None where none has been exchanged.

        Raises:
            Reached: while features of this site are gathered.
        """
        if site == self._wanted:
            raise Reached(h)
        canvas = self._canvases.get(site)
        return None if canvas is None else tile.coarser(self._coarser(site)).crop(canvas).to(h.device)

    def gather(
        self,
        features: Callable[[Tile], torch.Tensor | None],
        tiles: Sequence[Tile],
        overlap: int,
        blend: str,
        sites: Sequence[int],
    ) -> None:
        """Exchange phases over the canvas, at one site after the other.

        Args:
            features: of a tile, by a call that ends with :class:`Reached`; None where the call came to its end, after
                which nothing more is exchanged.
            tiles: of the latent.
            overlap, blend: see :func:`pgp_core.tiling.window.window`, in latent positions.
            sites: that exchange, as the UNet comes to them.

        Raises:
            GuidanceError: if features have other sizes than the tiles.
        """
        for site in sites:
            self._wanted = site
            try:
                self._canvases[site] = self._gathered(site, features, tiles, overlap, blend)
            except _NotReached:
                return
            finally:
                self._wanted = None

    def _gathered(
        self,
        site: int,
        features: Callable[[Tile], torch.Tensor | None],
        tiles: Sequence[Tile],
        overlap: int,
        blend: str,
    ) -> torch.Tensor:
        coarser, device = self._coarser(site), torch.device("cpu")
        fine = {tile.coarser(coarser): tile for tile in tiles}

        def resting(small: Tile) -> torch.Tensor:
            nonlocal device
            h = features(fine[small])
            if h is None:
                raise _NotReached
            if tuple(h.shape[-2:]) != (small.height, small.width):
                raise GuidanceError(
                    f"{self._who}the model's features are {h.shape[-1]} x {h.shape[-2]} where the tile's are "
                    f"{small.width} x {small.height}, so phases cannot be exchanged over the whole canvas; leave out "
                    "what cuts or scales them (Deep Shrink does), or guide without tiles"
                )
            device = h.device
            # The canvas of a large picture is larger than what a card holds beside its tiles.
            return h.to(self._rest or device, torch.promote_types(h.dtype, torch.float32))

        h = blended(resting, list(fine), overlap // coarser, blend, self._done)
        return self._exchanged(h, site, device)

    def _exchanged(self, h: torch.Tensor, site: int, device: torch.device) -> torch.Tensor:
        """In place of h, a few channels at a time: each channel of each latent has a phase of its own."""
        for i, row in enumerate(self._rows(site, tuple(h.shape))):
            f = fit(row[None], *h.shape[-2:])[0]
            for c in range(0, h.shape[1], _CHANNELS):
                some = slice(c, c + _CHANNELS)
                h[i, some] = exchange_phase(h[i, some].to(device), f[some].to(device, h.dtype)).to(h)
        return h


class _NotReached(Exception):  # noqa: N818
    """A call came to its end without the site."""
