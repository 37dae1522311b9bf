"""Redundancy reports: what was measured, on what, as JSON that is readable without the model."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ReportError
from ..files.atomic import replacing
from ..files.json_format import check_format, read_json
from .maps import FeatureMap

FORMAT = "pgp-diffsr/redundancy-report"
VERSION = 1

#: Features whose change from timestep to timestep is measured, by the paper's names: E, B and D for encoder,
#: bottleneck and decoder, with the factor by which the latent is reduced there. Of a UNet with fewer residual blocks a
#: level it is the last that it has; one without a middle has no B.
MODULES = {
    "E_1": "down_blocks.0.resnets.1",
    "E_2": "down_blocks.1.attentions.1",
    "E_4": "down_blocks.2.attentions.1",
    "B_4": "mid_block.resnets.1",
    "D_4": "up_blocks.0.attentions.2",
    "D_2": "up_blocks.1.attentions.2",
}
MEASURES = ("phi_cos", "psi_kl")
#: The key of a series' statistics over all timesteps.
ALL = "all"

_NUMBERS = ("mean", "std", "min", "q1", "median", "q3", "max")


@dataclass(frozen=True)
class Stats:
    """Statistics of one measure; see :class:`pgp_core.redundancy.statistics.Running`."""

    count: int
    mean: float
    std: float
    min: float
    q1: float
    median: float
    q3: float
    max: float

    def to_json(self) -> dict[str, float]:
        """JSON data."""
        return dict(vars(self))


#: Timestep (a whole number as text, or :data:`ALL`) to measure to statistics.
Series = Mapping[str, Mapping[str, Stats]]


@dataclass(frozen=True)
class Block:
    """One transformer block.

    Attributes:
        params: parameters.
        macs: multiply-accumulates at the latent that was sampled, attention's own products included; for one
            picture and one conditioning.
        series: change from the block's input to its output, at each timestep and over all.
    """

    params: int
    macs: int
    series: Series


@dataclass(frozen=True)
class Report:
    """A redundancy report.

    Attributes:
        topology: the UNet family (a topology's name).
        model: ``name`` and ``fingerprint`` of the UNet, see :mod:`pgp_core.redundancy.identity`.
        totals: ``params`` and ``macs`` of the whole UNet, the same way as :class:`Block`.
        measured: on what: ``pictures`` (names or a number), ``steps``, ``sampler``, ``seed``, ``cfg``,
            ``latent`` (height, width), ``calls``; what is unknown is null.
        partial: the run ended early; what it holds is right all the same.
        maps: a name of :data:`MODULES` to timestep to what the features look like there; may be empty.
        modules: a name of :data:`MODULES` to its change between adjacent timesteps, filed under the later one.
        blocks: diffusers' stack name to block number to :class:`Block`; only blocks that ran.
        versions: of this package and PyTorch.
    """

    topology: str
    model: Mapping[str, Any]
    totals: Mapping[str, int]
    measured: Mapping[str, Any]
    modules: Mapping[str, Series]
    blocks: Mapping[str, Mapping[int, Block]]
    partial: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    maps: Mapping[str, Mapping[str, FeatureMap]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON data, version 1."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "topology": self.topology,
            "model": dict(self.model),
            "totals": dict(self.totals),
            "measured": dict(self.measured),
            "partial": self.partial,
            "versions": dict(self.versions),
            "modules": {k: _series_json(v) for k, v in self.modules.items()},
            "blocks": {
                stack: {
                    str(n): {"params": b.params, "macs": b.macs, "timesteps": _series_json(b.series)}
                    for n, b in blocks.items()
                }
                for stack, blocks in self.blocks.items()
            },
            "maps": {k: {t: m.to_json() for t, m in maps.items()} for k, maps in self.maps.items()},
        }

    def dumps(self) -> str:
        """JSON text; the hash of it is a report's name in a plan's provenance."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all.

        Raises:
            ReportError: if it cannot be written.
        """
        try:
            with replacing(path) as temporary:
                temporary.write_text(self.dumps(), encoding="utf-8")
        except OSError as e:
            raise ReportError(f"{path} cannot be written: {e}") from None

    @classmethod
    def from_json(cls, data: Any, source: str = "report") -> Report:
        """Read and check a report.

        Raises:
            ReportError: naming what is wrong, and what to do.
        """
        data = check_format(data, FORMAT, VERSION, source, "redundancy report", ReportError)
        try:
            return cls(
                topology=_text(data["topology"]),
                model=_object(data["model"]),
                totals={k: _whole(v) for k, v in _object(data["totals"]).items()},
                measured=_object(data["measured"]),
                partial=bool(data["partial"]),
                versions={k: _text(v) for k, v in _object(data["versions"]).items()},
                modules={k: _series(v) for k, v in _object(data["modules"]).items()},
                blocks={
                    stack: {
                        int(n): Block(_whole(b["params"]), _whole(b["macs"]), _series(b["timesteps"]))
                        for n, b in _object(blocks).items()
                    }
                    for stack, blocks in _object(data["blocks"]).items()
                },
                # Older reports have none.
                maps={
                    k: {_timestep(t): FeatureMap.from_json(_object(m)) for t, m in _object(maps).items()}
                    for k, maps in _object(data.get("maps", {})).items()
                },
            )
        # A stranger's file: whatever is raised, the file is at fault.
        except Exception as e:
            raise ReportError(f"{source}: the report is incomplete or wrong at {e}") from None


def load_report(path: str | os.PathLike[str]) -> Report:
    """A report from a file.

    Raises:
        ReportError: if there is none, or it is not valid.
    """
    path = Path(path)
    try:
        data = read_json(path, "a report", ReportError)
    except FileNotFoundError:
        raise ReportError(f"there is no file {path}") from None
    return Report.from_json(data, path.name)


def _series_json(series: Series) -> dict[str, Any]:
    return {t: {m: s.to_json() for m, s in measures.items()} for t, measures in series.items()}


def _series(data: Any) -> Series:
    return {_timestep(t): {m: _stats(_object(measures)[m]) for m in MEASURES} for t, measures in _object(data).items()}


def _timestep(text: str) -> str:
    if text != ALL and not 0 <= int(text) < 10_000:
        raise ValueError(f"timestep {text}")
    return text


def _stats(data: Any) -> Stats:
    data = _object(data)
    numbers = [float(data[k]) for k in _NUMBERS]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a number that is not finite (NaN): measure again")
    return Stats(_whole(data["count"]), *numbers)


def _object(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise TypeError(f"{str(data)[:40]!r}, which should be an object")
    return data


def _text(data: Any) -> str:
    if not isinstance(data, str):
        raise TypeError(f"{str(data)[:40]!r}, which should be text")
    return data


def _whole(data: Any) -> int:
    if not isinstance(data, int) or isinstance(data, bool) or data < 0:
        raise TypeError(f"{str(data)[:40]!r}, which should be a whole number")
    return data
