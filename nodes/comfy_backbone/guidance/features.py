"""The features of a run's LQ pictures: made once, resting where there is room, handed out piece by piece."""

from __future__ import annotations

import logging
from typing import Protocol

import comfy.model_management as mm
import torch

from ....pgp_core.errors import GuidanceError
from ....pgp_core.guidance.lq_tiles import LQTiles
from ....pgp_core.guidance.module import Guidance
from ....pgp_core.unet.topology import KeyMap
from ..places import Piece
from .canvas import canvas

log = logging.getLogger(__name__)

#: Bytes that core's own VAE encoder takes per pixel and byte of its dtype; FaithDiff's encoder is its trunk.
_ENCODER_BYTES = 1767
#: The same for the LQ adapter, in float32: the unshuffled canvas and a few layers of 320 channels at 1/16.
_ADAPTER_BYTES = 48


class GuidancePatcher(Protocol):
    """Core's ModelPatcher, of a :class:`Guidance`."""

    model: Guidance
    load_device: torch.device


class LQFeatures:
    """Features of LQ pictures at every site.

    Args:
        patcher: core's, of the :class:`Guidance`.
        lq: ``(B, 3, H, W)`` in [0, 1].
    """

    def __init__(self, patcher: GuidancePatcher, lq: torch.Tensor):
        self.patcher, self.lq = patcher, lq
        self.tiles = LQTiles(
            patcher.load_device,
            mm.intermediate_device(),
            say=_warn,
            free=mm.soft_empty_cache,
            done=mm.throw_exception_if_processing_interrupted,
        )
        self._names = KeyMap()
        self.clear()

    def clear(self) -> None:
        """Forget what was made, and which pictures a run is about."""
        self._about(self.lq, None)

    def about(self, pictures: torch.Tensor, latent: tuple[int, int]) -> None:
        """From here on it is about these pictures, for latents of a height and width; nothing is made yet."""
        self._about(pictures, latent)

    def _about(self, pictures: torch.Tensor, latent: tuple[int, int] | None) -> None:
        self._pictures, self._latent = pictures, latent
        self._canvases: dict[tuple[int, int], torch.Tensor] = {}
        #: By size of the canvas and by how far it was moved: features of a site.
        self._made: dict[tuple[tuple[int, int], tuple[int, int]], dict[int, torch.Tensor]] = {}
        #: The same features where they are used, whole ones only: of large canvases a device holds only pieces.
        self._moved: dict[tuple[torch.device, int, tuple[int, int]], torch.Tensor] = {}

    @property
    def made(self) -> tuple[torch.Tensor, ...] | None:
        """Features of the whole canvas at each site, where they have been made."""
        found = next((made for (_, moved), made in self._made.items() if moved == (0, 0)), None)
        return None if found is None else tuple(f for _, f in sorted(found.items()))

    def halvings(self, site: int) -> int:
        """How often the latent's size has been halved at a site."""
        return self._names.halvings_before(self.patcher.model.spec.sites[site].module)

    def positions(self, site: int, latent: tuple[int, int]) -> tuple[int, int]:
        """Feature positions at a site of a piece of a latent."""
        height, width = (-(-n >> self.halvings(site)) for n in latent)
        return height, width

    def whole(
        self, site: int, need: tuple[int, int], device: torch.device | None = None, make_room: bool = False
    ) -> torch.Tensor:
        """A site's features with ``need`` positions over the whole picture.

        Args:
            device: where they are wanted; None for where they rest.
            make_room: whether core may unload models for it, which it must not while one is called.

        Returns:
            ``(pictures, C, *need)``, or smaller or larger by rounding.

        Raises:
            GuidanceError: if the pictures do not have the proportions of the latent.
        """
        if device is not None and (key := (device, site, need)) in self._moved:
            return self._moved[key]
        features = self._features(site, self._canvas(site, need), (0, 0), make_room)
        if device is not None:
            features = self._moved[key] = features.to(device)
        return features

    def piece(self, site: int, piece: Piece, latent: tuple[int, int]) -> torch.Tensor:
        """A site's features of a piece of the latent, where they rest.

        They lie where the UNet's do. A UNet that is given the piece alone halves it from the piece's own first
        position; where the piece does not begin on the grid of the whole latent's features, the picture is moved
        onto the piece's grid.
        """
        stride = 1 << self.halvings(site)
        (top, down), (left, right) = divmod(piece.y, stride), divmod(piece.x, stride)
        features = self._features(site, self._canvas(site, self.positions(site, latent)), (down, right))
        height, width = self.positions(site, (piece.height, piece.width))
        return features[..., top : top + height, left : left + width]

    def _canvas(self, site: int, need: tuple[int, int]) -> tuple[int, int]:
        """Size of the pictures that have ``need`` feature positions at a site; they are made if there are none."""
        scale = self.patcher.model.spec.sites[site].scale
        for size in self._canvases:
            if all(-(-n // scale) == m for n, m in zip(size, need, strict=True)):
                return size
        if self._latent is not None and need == self.positions(site, self._latent):
            position = scale >> self.halvings(site)
            height, width = (n * position for n in self._latent)
        else:
            # Something made the UNet's features coarser.
            position, (height, width) = scale, (n * scale for n in need)
        pictures = canvas(self._pictures, height, width, position, _warn)
        size = (pictures.shape[-2], pictures.shape[-1])
        self._canvases[size] = pictures
        return size

    def _features(
        self, site: int, size: tuple[int, int], moved: tuple[int, int], make_room: bool = False
    ) -> torch.Tensor:
        made = self._made.setdefault((size, moved), {})
        if site not in made:
            made |= self._make(site, self._canvases[size], moved, make_room)
        return made[site]

    def _make(self, site: int, lq: torch.Tensor, moved: tuple[int, int], make_room: bool) -> dict[int, torch.Tensor]:
        """Features at every site; of pictures that are moved by some latent positions, at those like ``site``."""
        guidance = self.patcher.model
        sites = list(range(len(guidance.spec.sites)))
        if moved != (0, 0):
            position = guidance.spec.sites[site].scale >> self.halvings(site)
            lq = lq[..., moved[0] * position :, moved[1] * position :]
            # Nobody asks for those on other grids, and the encoder takes long.
            sites = [s for s in sites if self.halvings(s) == self.halvings(site)]
        dtype = mm.vae_dtype(self.patcher.load_device, [torch.float16, torch.bfloat16])
        if make_room:
            tiles, pixels = self.tiles, lq.shape[-2] * lq.shape[-1]
            encoder = _ENCODER_BYTES * dtype.itemsize if "lq_encoder" in guidance.spec.parts else 0
            memory = encoder * min(pixels, tiles.tile**2) + _ADAPTER_BYTES * min(pixels, tiles.adapter_tile**2)
            mm.load_models_gpu([self.patcher], memory_required=memory)
        # One by one: a tile of 1024 x 1024 takes the encoder 3.5 GB in half precision.
        pictures = [guidance.features(picture[None].float(), dtype, self.tiles, sites) for picture in lq]
        together = [fs[0] if len(fs) == 1 else torch.cat(fs) for fs in zip(*pictures, strict=True)]
        if not all(bool(f.isfinite().all()) for f in together):
            raise GuidanceError(
                "Apply PGP-DiffSR: the picture's features are not finite, not even in float32; the guidance's file is "
                "damaged"
            )
        return dict(zip(sites, together, strict=True))


def _warn(line: str) -> None:
    log.warning("Apply PGP-DiffSR: %s", line)
