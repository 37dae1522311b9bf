"""PEAM's phase exchange over the whole canvas, though the UNet is called tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management as mm
import torch

from ....pgp_core.errors import GuidanceError
from ....pgp_core.guidance.module import fit
from ....pgp_core.guidance.phase import exchange_phase
from ....pgp_core.tiling import Tile, blended

#: Channels that are exchanged at a time: a canvas of 512 x 512 positions takes a few hundred megabytes then.
_CHANNELS = 32


class Reached(Exception):  # noqa: N818 - no error: the way out of a UNet
    """Raised at a site whose features are wanted and nothing behind them."""

    def __init__(self, h: torch.Tensor):
        super().__init__("features of a tile, for the phase exchange over the whole canvas")
        self.h = h


class CanvasPhase:
    """One call's exchanges; the guidance finds it by :func:`..current_tile.current_phase`.

    The UNet's features at a site are gathered from all tiles, exchanged at once, and handed out tile by tile.

    Args:
        patch: the guidance.
        options: ``transformer_options`` of the call, without a tile.
    """

    def __init__(self, patch: Any, options: dict[str, Any]):
        self._patch, self._options = patch, options
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
        return None if canvas is None else tile.coarser(1 << self._patch.halvings(site)).crop(canvas).to(h)

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
            features: of a tile, by a call that ends with :class:`Reached`; None where it came to its end.
            overlap: in latent positions.
            sites: that exchange, as the UNet comes to them.
        """
        for site in sites:
            self._wanted = site
            try:
                self._canvases[site] = self._gathered(site, features, tiles, overlap, blend)
            except _NotReached:
                # Another pack's wrapper answered without the UNet.
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
        halvings, device = self._patch.halvings(site), torch.device("cpu")
        fine = {tile.coarser(1 << halvings): tile for tile in tiles}

        def resting(tile: Tile) -> torch.Tensor:
            nonlocal device
            h = features(fine[tile])
            if h is None:
                raise _NotReached
            if tuple(h.shape[-2:]) != (tile.height, tile.width):
                raise GuidanceError(
                    f"PGP-DiffSR Tiling: the model's features are {h.shape[-1]} x {h.shape[-2]} where the tile's are "
                    f"{tile.width} x {tile.height}, so phases cannot be exchanged over the whole canvas; leave out "
                    "what cuts or scales them (Deep Shrink does), or guide without tiles"
                )
            device = h.device
            # The canvas of a large picture is larger than what a card holds beside its tiles.
            return h.float().to(mm.intermediate_device())

        h = blended(resting, list(fine), overlap >> halvings, blend)
        return self._exchanged(h, site, device)

    def _exchanged(self, h: torch.Tensor, site: int, device: torch.device) -> torch.Tensor:
        """In place of h, a few channels at a time: each channel of each latent has a phase of its own."""
        for i, row in enumerate(self._patch.rows(site, tuple(h.shape), self._options)):
            f = fit(row[None], *h.shape[-2:])[0]
            for c in range(0, h.shape[1], _CHANNELS):
                some = slice(c, c + _CHANNELS)
                h[i, some] = exchange_phase(h[i, some].to(device), f[some].to(device, torch.float32)).to(h)
        return h


class _NotReached(Exception):  # noqa: N818
    """A call came to its end without the site."""
