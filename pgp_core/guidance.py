"""Guidance: what one file holds of LQ adapter and PEAM, LQ encoder and alignment, composed as its metadata says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .alignment import Alignment
from .checkpoints import check_same
from .errors import GuidanceError, name_some
from .lq_adapter import LQAdapter
from .lq_encoder import GROUPS, Attention, LQEncoder, plain_attention
from .peam import PEAM

FORMAT = "pgp-diffsr/guidance"
VERSION = 1
METADATA_KEY = "pgp.guidance"
KEY_PREFIX = "pgp."


@dataclass(frozen=True)
class Site:
    """One place where the LQ features meet the UNet's.

    Attributes:
        module: diffusers name of the encoder module after which they meet; the skip connection takes the
            fused features too.
        channels: C of the UNet's features there.
        level: which of the LQ adapter's levels feeds it; not read for ``"alignment"``.
        scale: pixels of the LQ canvas per feature position there.
        fusion: ``"peam"``; ``"add"`` as plain T2I-Adapter does; or ``"alignment"``, FaithDiff's, which the LQ
            encoder feeds.
    """

    module: str = "down_blocks.0.downsamplers.0"
    channels: int = 320
    level: int = 0
    scale: int = 16
    fusion: str = "peam"

    def to_json(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class GuidanceSpec:
    """What a guidance file holds; stored in its metadata under ``pgp.guidance``.

    Attributes:
        base: the UNet family that it guides (a topology's name).
        sites: where the LQ comes in.
        channels, unshuffle, blocks: the LQ adapter's shape.
        encoder_channels, encoder_blocks: the LQ encoder's shape, see :class:`pgp_core.lq_encoder.LQEncoder`.
        alignment_layers: see :class:`pgp_core.alignment.Alignment`.
        residual, slope: see :class:`pgp_core.peam.PEAM`.
        input_range: range of the RGB canvas that the adapter was trained with; the encoder's is (-1, 1).
        trained: False if a part is fresh and changes nothing.
        plan_sha256: hash of the plan that the UNet had in training, or None.
    """

    base: str = "sdxl"
    sites: tuple[Site, ...] = (Site(),)
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    unshuffle: int = 16
    blocks: int = 2
    encoder_channels: tuple[int, ...] = (128, 256, 512, 512)
    encoder_blocks: int = 2
    alignment_layers: int = 2
    residual: bool = True
    slope: float = 0.2
    input_range: tuple[float, float] = (0.0, 1.0)
    trained: bool = True
    plan_sha256: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    #: Parts that this release builds; a file with others is refused, not half-read.
    PARTS = ("lq_adapter", "peam", "lq_encoder", "alignment")

    @property
    def parts(self) -> tuple[str, ...]:
        """Those of :data:`PARTS` that the sites need."""
        fusions = {s.fusion for s in self.sites}
        adapter, encoder = bool(fusions & {"peam", "add"}), "alignment" in fusions
        return ("lq_adapter", "peam") * adapter + ("lq_encoder", "alignment") * encoder

    @property
    def levels(self) -> int:
        """How many adapter levels the sites use."""
        return max((s.level for s in self.sites if s.fusion != "alignment"), default=-1) + 1

    def to_json(self) -> dict[str, Any]:
        """JSON data, version 1."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "base": self.base,
            "parts": list(self.parts),
            "sites": [s.to_json() for s in self.sites],
            **({"lq_adapter": self._adapter_json(), "input_range": list(self.input_range)} if self.levels else {}),
            **(self._encoder_json() if "lq_encoder" in self.parts else {}),
            "residual": self.residual,
            "slope": self.slope,
            "null_phase": "own",
            "trained": self.trained,
            "plan_sha256": self.plan_sha256,
            **self.extra,
        }

    def _adapter_json(self) -> dict[str, Any]:
        return {"channels": list(self.channels), "unshuffle": self.unshuffle, "blocks": self.blocks}

    def _encoder_json(self) -> dict[str, Any]:
        encoder = {"channels": list(self.encoder_channels), "blocks": self.encoder_blocks, "input_range": [-1, 1]}
        return {"lq_encoder": encoder, "alignment": {"layers": self.alignment_layers}}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None, source: str = "this file") -> GuidanceSpec:
        """Read a file's metadata.

        Raises:
            GuidanceError: if there is none of ours, it is too new, or something in it is wrong.
        """
        text = (metadata or {}).get(METADATA_KEY)
        if text is None:
            raise GuidanceError(f'{source} is no PGP-DiffSR guidance: its metadata has no "{METADATA_KEY}"')
        try:
            data = json.loads(text)
        except (TypeError, ValueError, RecursionError) as e:
            raise GuidanceError(f'{source}: its "{METADATA_KEY}" is not valid JSON: {e}') from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise GuidanceError(f'{source} is no PGP-DiffSR guidance: its format is not "{FORMAT}"')
        version = data.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise GuidanceError(f"{source}: its guidance version must be a positive whole number, not {version!r}")
        if version > VERSION:
            raise GuidanceError(f"{source} has guidance version {version}, this release reads up to {VERSION}: update")
        parts = data.get("parts", [])
        if not isinstance(parts, list) or any(not isinstance(p, str) for p in parts):
            raise GuidanceError(f'{source}: "parts" must be a list of names, not {parts!r}')
        unknown = set(parts) - set(cls.PARTS)
        if unknown:
            raise GuidanceError(f"{source} has parts that this release does not know: {name_some(unknown)}: update")
        if data.get("null_phase") != "own":
            raise GuidanceError(f'{source}: null_phase is {data.get("null_phase")!r}, this release knows "own" only')
        try:
            sites = tuple(
                Site(str(s["module"]), int(s["channels"]), int(s["level"]), int(s["scale"]), str(s["fusion"]))
                for s in data["sites"]
            )
            default = cls(sites=sites)
            needs_adapter, needs_encoder = default.levels > 0, "lq_encoder" in default.parts
            adapter = data["lq_adapter"] if needs_adapter else default._adapter_json()
            low, high = data["input_range"] if needs_adapter else default.input_range
            encoder = data if needs_encoder else default._encoder_json()
            if [float(x) for x in encoder["lq_encoder"]["input_range"]] != [-1, 1]:
                raise GuidanceError(f"{source}: its LQ encoder wants another range than -1 to 1: update")
            spec = cls(
                base=str(data["base"]),
                sites=sites,
                channels=tuple(int(c) for c in adapter["channels"]),
                unshuffle=int(adapter["unshuffle"]),
                blocks=int(adapter["blocks"]),
                encoder_channels=tuple(int(c) for c in encoder["lq_encoder"]["channels"]),
                encoder_blocks=int(encoder["lq_encoder"]["blocks"]),
                alignment_layers=int(encoder["alignment"]["layers"]),
                residual=bool(data["residual"]),
                slope=float(data.get("slope", 0.01)),  # 0.01 in files from before it was stored
                input_range=(float(low), float(high)),
                trained=bool(data["trained"]),
                plan_sha256=data.get("plan_sha256"),
            )
        except GuidanceError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as e:
            raise GuidanceError(f"{source}: its guidance metadata is incomplete or wrong at {e}") from None
        spec._check(source)
        return spec

    def _check(self, source: str) -> None:
        if not self.sites:
            raise GuidanceError(f"{source}: its guidance has no sites")
        if len(self.sites) > 64:
            raise GuidanceError(f"{source}: its guidance has {len(self.sites)} sites, which no UNet has")
        sizes = [
            self.unshuffle,
            self.blocks,
            *self.channels,
            self.encoder_blocks,
            self.alignment_layers,
            *self.encoder_channels,
            *(s.channels for s in self.sites),
            *(s.scale for s in self.sites),
        ]
        # Sizes come from an untrusted file and become allocations.
        if (
            not all(1 <= x <= 16384 for x in sizes)
            or max(self.unshuffle, self.blocks, self.encoder_blocks, self.alignment_layers) > 64
        ):
            raise GuidanceError(f"{source}: its guidance metadata has impossible sizes: {sizes}")
        if not all(math.isfinite(x) for x in self.input_range):
            raise GuidanceError(f"{source}: its input_range {self.input_range} is no range")
        if not 0 <= self.slope <= 1:
            raise GuidanceError(f"{source}: its PEAM has a LeakyReLU slope of {self.slope}; 0 to 1 is possible")
        if not 2 <= len(self.encoder_channels) <= 8 or any(c % GROUPS for c in self.encoder_channels):
            raise GuidanceError(f"{source}: an LQ encoder of {self.encoder_channels} channels cannot be built")
        for s in self.sites:
            if s.fusion not in ("peam", "add", "alignment"):
                raise GuidanceError(
                    f"{source}: site {s.module} has fusion {s.fusion!r}; peam, add and alignment are known: update"
                )
            if s.fusion == "alignment":
                if s.scale != 2 ** (len(self.encoder_channels) - 1):
                    raise GuidanceError(f"{source}: site {s.module} has another scale than its LQ encoder")
                continue
            if not 0 <= s.level < len(self.channels):
                raise GuidanceError(f"{source}: site {s.module} asks for adapter level {s.level}, which is not there")
            if self.channels[s.level] != s.channels:
                raise GuidanceError(
                    f"{source}: site {s.module} has {s.channels} channels, adapter level {s.level} gives "
                    f"{self.channels[s.level]}"
                )
        if sum(s.fusion == "alignment" for s in self.sites) > 1:
            raise GuidanceError(f"{source}: its guidance has more than one alignment")


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
                if s.fusion == "peam"
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

    def features(self, lq: torch.Tensor, encoder_dtype: torch.dtype | None = None) -> tuple[torch.Tensor, ...]:
        """LQ features for every site; independent of the timestep, so compute them once per picture.

        Args:
            lq: ``(B, 3, H, W)`` RGB canvas in [0, 1].
            encoder_dtype: what the LQ encoder computes in, where its layers can choose; by default lq's.

        Returns:
            one ``(B, C, ceil(H / scale), ceil(W / scale))`` per site.
        """
        low, high = self.spec.input_range
        levels = self.lq_adapter(lq * (high - low) + low) if self.spec.levels else []
        return tuple(
            self._encoded(lq, encoder_dtype) if s.fusion == "alignment" else levels[s.level] for s in self.spec.sites
        )

    def _encoded(self, lq: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
        return self.alignment.condition(self.lq_encoder((lq * 2 - 1).to(dtype or lq.dtype)))

    def dtype_at(self, site: int, f: torch.Tensor) -> torch.dtype:
        """In which dtype a site computes: its weights', or at an additive one the LQ features'."""
        fusion = self.spec.sites[site].fusion
        if fusion == "add":
            return f.dtype
        part = self.peam[str(site)] if fusion == "peam" else self.alignment.proj
        return next(part.parameters()).dtype

    def fuse(
        self, site: int, h: torch.Tensor, f: torch.Tensor, strength: float = 1.0, exchange: bool = True
    ) -> torch.Tensor:
        """``h + strength * (PEAM(h, f) - h)`` at one site (``h + strength * f`` at an additive one,
        ``h + strength * alignment(h, f)`` at FaithDiff's).

        Args:
            site: index into ``spec.sites``.
            h: ``(B, C, H, W)`` UNet features.
            f: ``(1 or B, C, H', W')`` LQ features. They may be larger by the padding of the canvas, which
                is cut off, or smaller, and are then padded by repeating the edge.
            strength: 0 returns h itself, 1 PEAM's result.
            exchange: False for the ablation "fusion without the phase".

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
        fused = self.peam[str(site)](h, f, exchange)
        return fused if strength == 1 else h + strength * (fused - h)

    def load(self, state_dict: Mapping[str, torch.Tensor], source: str = "this file") -> Guidance:
        """Load weights as they stand in a file, keys prefixed ``pgp.``.

        Raises:
            GuidanceError: naming the first few missing, foreign or misshapen keys.
        """
        # Expected names come from a plain twin: ComfyUI's layers may have no weights before they are loaded.
        twin = Guidance(self.spec, device="meta")
        expected = {KEY_PREFIX + k: tuple(v.shape) for k, v in twin.state_dict().items()}
        check_same(expected, state_dict, source, GuidanceError)
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
