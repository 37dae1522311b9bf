"""What a guidance file holds, as its metadata says it; :mod:`pgp_core.guidance.module` builds it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import GuidanceError, name_some
from ..files.json_format import check_format, parse_metadata
from ..unet.known import SDXL
from ..unet.plan import PrunePlan

#: Of the LQ encoder's norms.
GROUPS = 32

FORMAT = "pgp-diffsr/guidance"
VERSION = 1
METADATA_KEY = "pgp.guidance"
#: What a site may do with the LQ features, see :class:`Site`; those with PEAM's convolutions.
FUSIONS = ("peam", "phase", "convs", "add", "alignment")
CONVOLVED = ("peam", "convs")


@dataclass(frozen=True)
class Site:
    """One place where the LQ features meet the UNet's.

    Attributes:
        module: diffusers name of the encoder module after which they meet; the skip connection takes the
            fused features too.
        channels: C of the UNet's features there.
        level: which of the LQ adapter's levels feeds it; not read for ``"alignment"``.
        scale: pixels of the LQ canvas per feature position there.
        fusion: ``"peam"``; two halves of it, for the paper's ablation (Table 5): ``"phase"``, the UNet's features
            with the phase of the LQ's and no convolution, and ``"convs"``, PEAM's convolutions on the LQ features
            as they are; ``"add"`` as plain T2I-Adapter does; or ``"alignment"``, FaithDiff's, which the LQ encoder
            feeds.
    """

    module: str = "down_blocks.0.downsamplers.0"
    channels: int = 320
    level: int = 0
    scale: int = 16
    fusion: str = "peam"

    @property
    def is_base(self) -> bool:
        """Whether the LQ picture is added to the UNet's input layer, beside which PEAM stands."""
        return self.fusion == "add" and self.module == "conv_in"

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
        encoder_channels, encoder_blocks: the LQ encoder's shape, see :class:`pgp_core.guidance.lq_encoder.LQEncoder`.
        alignment_layers: see :class:`pgp_core.guidance.alignment.Alignment`.
        residual, slope: see :class:`pgp_core.guidance.peam.PEAM`.
        input_range: range of the RGB canvas that the adapter was trained with; the encoder's is (-1, 1).
        trained: False if a part is fresh and changes nothing.
        plan_name, plan_sha256, plan_blocks: of the plan that the UNet had in training: its name, its hash, and the
            numbers of the blocks that stayed, by stack. None where there was none; files from before this release have
            the hash alone. See :meth:`with_plan`.
        extra: more entries of the metadata, for people; not read back.
    """

    base: str = SDXL.name
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
    plan_name: str | None = None
    plan_sha256: str | None = None
    plan_blocks: Mapping[str, tuple[int, ...]] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    #: Parts that this release builds; a file with others is refused, not half-read.
    PARTS = ("lq_adapter", "peam", "lq_encoder", "alignment")

    @property
    def parts(self) -> tuple[str, ...]:
        """Those of :data:`PARTS` that the sites need."""
        fusions = {s.fusion for s in self.sites}
        adapter, encoder = bool(fusions - {"alignment"}), "alignment" in fusions
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
            **self._blocks_json(),
            **self.extra,
        }

    def with_plan(self, plan: PrunePlan) -> GuidanceSpec:
        """The same, trained with a UNet of this plan."""
        return replace(self, plan_name=plan.name, plan_sha256=plan.sha256(), plan_blocks=plan.blocks)

    def _blocks_json(self) -> dict[str, Any]:
        if self.plan_blocks is None:
            return {}
        return {"plan_name": self.plan_name, "plan_blocks": {s: list(kept) for s, kept in self.plan_blocks.items()}}

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
        data = parse_metadata(text, METADATA_KEY, source, GuidanceError)
        data = check_format(data, FORMAT, VERSION, source, "PGP-DiffSR guidance", GuidanceError)
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
                plan_name=_name(data.get("plan_name")),
                plan_sha256=data.get("plan_sha256"),
                plan_blocks=_blocks(data.get("plan_blocks")),
            )
        except GuidanceError:
            raise
        except Exception as e:
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
            if s.fusion not in FUSIONS:
                raise GuidanceError(
                    f"{source}: site {s.module} has fusion {s.fusion!r}; {', '.join(FUSIONS)} are known: update"
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


def _name(data: Any) -> str | None:
    if data is not None and not isinstance(data, str):
        raise TypeError(f"plan_name {str(data)[:40]!r}, which should be text")
    return data


def _blocks(data: Any) -> dict[str, tuple[int, ...]] | None:
    if data is None:
        return None
    blocks = {str(stack): tuple(int(n) for n in kept) for stack, kept in data.items()}
    for stack, kept in blocks.items():
        if list(kept) != sorted(set(kept)) or not all(0 <= n < 1000 for n in kept):
            raise ValueError(f"plan_blocks: the blocks of {stack[:40]!r} must ascend, from 0")
    return blocks
