"""Guidance: LQ adapter and PEAM, LQ encoder and alignment, composed as a file's metadata says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import GuidanceError
from ..files.checkpoints import check_finite, check_same
from .alignment import Alignment
from .lq_adapter import LQAdapter
from .lq_encoder import Attention, LQEncoder, plain_attention
from .lq_tiles import LQTiles
from .peam import PEAM
from .phase import exchange_phase
from .spec import CONVOLVED, METADATA_KEY, GuidanceSpec, Site

__all__ = ["KEY_PREFIX", "METADATA_KEY", "Guidance", "GuidanceSpec", "Site", "fit"]

#: With which the names of a file's tensors begin.
KEY_PREFIX = "pgp."


class Guidance(torch.nn.Module):
    """LQ adapter and one PEAM per site, LQ encoder and alignment, as the spec says.

    Use: :meth:`features` once per picture, then :meth:`fuse` at each site and UNet call.
    """

    def __init__(
        self,
        spec: GuidanceSpec,
        operations: Any = torch.nn,
        device: Any = None,
        dtype: torch.dtype | None = None,
        attention: Attention = plain_attention,
    ):
        super().__init__()
        self.spec = spec
        # Layers of ComfyUI's cast their weights to what comes in; PyTorch's do not.
        self._casts = operations is not torch.nn
        factory = {"operations": operations, "device": device, "dtype": dtype}
        if spec.levels:
            self.lq_adapter = LQAdapter(spec.channels, spec.unshuffle, spec.levels, spec.blocks, **factory)
        for s in spec.sites:
            if s.fusion == "alignment":
                self.lq_encoder = LQEncoder(spec.encoder_channels, spec.encoder_blocks, attention, **factory)
                self.alignment = Alignment(spec.encoder_channels[-1], s.channels, spec.alignment_layers, **factory)
        # Keyed by the site's number, so that a file's keys say which site a PEAM belongs to.
        self.peam = torch.nn.ModuleDict(
            {
                str(i): PEAM(s.channels, spec.residual, spec.slope, **factory)
                for i, s in enumerate(spec.sites)
                if s.fusion in CONVOLVED
            }
        )

    @classmethod
    def fresh(cls, spec: GuidanceSpec, **factory: Any) -> Guidance:
        """An untrained guidance whose PEAMs (with ``spec.residual``) and alignment change nothing."""
        guidance = cls(spec, **factory)
        for peam in guidance.peam.values():
            peam.reset_identity()  # type: ignore[operator]
        if "alignment" in spec.parts:
            guidance.alignment.reset_identity()
        return guidance

    def features(
        self,
        lq: torch.Tensor,
        encoder_dtype: torch.dtype | None = None,
        tiles: LQTiles | None = None,
        sites: Sequence[int] | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """LQ features for every site; independent of the timestep, so compute them once per picture.

        Args:
            lq: ``(B, 3, H, W)`` RGB canvas in [0, 1].
            encoder_dtype: what the LQ encoder computes in, where its layers can choose; by default lq's.
            tiles: for a canvas of any size, without a gradient; None for the whole at once.
            sites: which ones, as indices into ``spec.sites``; all of them by default.

        Returns:
            one ``(B, C, ceil(H / scale), ceil(W / scale))`` per site.
        """
        asked = self.spec.sites if sites is None else [self.spec.sites[i] for i in sites]
        wanted = {s.level for s in asked if s.fusion != "alignment"}
        levels: Mapping[int, torch.Tensor] = {}
        if wanted and tiles is not None:
            levels = tiles.adapter(self.lq_adapter, lq, wanted, self._ranged)
        elif wanted:
            levels = dict(enumerate(self.lq_adapter(self._ranged(lq))))
        return tuple(
            self._encoded(lq, encoder_dtype, tiles) if s.fusion == "alignment" else levels[s.level] for s in asked
        )

    def _ranged(self, lq: torch.Tensor) -> torch.Tensor:
        low, high = self.spec.input_range
        return lq * (high - low) + low

    def _encoded(self, lq: torch.Tensor, dtype: torch.dtype | None, tiles: LQTiles | None) -> torch.Tensor:
        if tiles is not None:
            stages = [*self.lq_encoder.stages(), self.alignment.stage()]
            return tiles.encoder(self._encode, stages, lq, dtype)
        return self._encode((lq * 2 - 1).to(dtype or lq.dtype))

    def _encode(self, rgb: torch.Tensor) -> torch.Tensor:
        return self.alignment.condition(self.lq_encoder(rgb))

    def dtype_at(self, site: int, h: torch.Tensor, f: torch.Tensor) -> torch.dtype:
        """In which dtype a site computes: its weights', or where it has none the LQ features'.

        Where layers follow their input, that is float32, as a PEAM's twelve convolutions in a row overflow half
        precision; FaithDiff's alignment is meant to run in the UNet's dtype.
        """
        fusion = self.spec.sites[site].fusion
        if self._casts:
            return h.dtype if fusion == "alignment" else torch.float32
        if fusion in ("add", "phase"):
            return f.dtype
        part = self.peam[str(site)] if fusion in CONVOLVED else self.alignment.proj
        return next(part.parameters()).dtype

    def exchanges(self, site: int) -> bool:
        """Whether a site exchanges phases, which is over all positions at once and so not the same in tiles."""
        return self.spec.sites[site].fusion in ("peam", "phase")

    def fuse(
        self,
        site: int,
        h: torch.Tensor,
        f: torch.Tensor,
        strength: float = 1.0,
        exchange: bool = True,
        phased: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``h + strength * (PEAM(h, f) - h)`` at one site (or a half of PEAM; ``h + strength * f`` at an additive
        one, ``h + strength * alignment(h, f)`` at FaithDiff's).

        Args:
            site: index into ``spec.sites``.
            h: ``(B, C, H, W)`` UNet features.
            f: ``(1 or B, C, H', W')`` LQ features. They may be larger by the padding of the canvas, which
                is cut off, or smaller, and are then padded by repeating the edge.
            strength: 0 returns h itself, 1 PEAM's result.
            exchange: False for the ablation "fusion without the phase".
            phased: h with f's phase, ``(B, C, H, W)``, where it has been made over more than is given here: a tile's
                part of the exchange over the whole canvas.

        Raises:
            GuidanceError: if the channels differ.
        """
        if strength == 0:
            return h
        if h.shape[1] != f.shape[1]:
            raise GuidanceError(
                f"guidance for {f.shape[1]} channels does not fit this model: it has {h.shape[1]} channels at "
                f"{self.spec.sites[site].module}"
            )
        if f.shape[0] not in (1, h.shape[0]):
            raise GuidanceError(f"guidance for {f.shape[0]} pictures does not fit a batch of {h.shape[0]}")
        f = fit(f, h.shape[-2], h.shape[-1]).to(h.dtype).expand(h.shape[0], -1, -1, -1)
        if self.spec.sites[site].fusion == "add":
            return h + strength * f
        if self.spec.sites[site].fusion == "alignment":
            return h + strength * self.alignment(h, f)
        if self.spec.sites[site].fusion == "convs":
            fused = self.peam[str(site)].fuse(f, h)  # type: ignore[operator]
        else:
            if phased is None:
                phased = exchange_phase(h, f) if exchange else h
            alone = self.spec.sites[site].fusion == "phase"
            fused = phased if alone else self.peam[str(site)].fuse(phased, h)  # type: ignore[operator]
        return fused if strength == 1 else h + strength * (fused - h)

    def load(self, state_dict: Mapping[str, torch.Tensor], source: str = "this file") -> Guidance:
        """Load weights as they stand in a file, keys prefixed ``pgp.``.

        Raises:
            GuidanceError: naming the first few missing, foreign, misshapen or not finite keys.
        """
        # Expected names come from a plain twin: ComfyUI's layers may have no weights before they are loaded.
        twin = Guidance(self.spec, device="meta")
        expected = {KEY_PREFIX + k: tuple(v.shape) for k, v in twin.state_dict().items()}
        check_same(expected, state_dict, source, GuidanceError)
        check_finite(state_dict, source, GuidanceError)
        self.load_state_dict({k[len(KEY_PREFIX) :]: v for k, v in state_dict.items()}, assign=True)
        return self


def fit(f: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Crop, or pad by repeating the edge, to ``(height, width)`` at the right and lower border.

    Sizes differ only by rounding: the adapter rounds the canvas up, the UNet's downsampler its latent.
    """
    f = f[..., :height, :width]
    pad_h, pad_w = height - f.shape[-2], width - f.shape[-1]
    if pad_h or pad_w:
        f = torch.nn.functional.pad(f, (0, pad_w, 0, pad_h), mode="replicate")
    return f
