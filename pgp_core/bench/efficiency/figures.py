"""What was measured, as plain numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...restorers.restorer import PARTS
from ..macs import Counted, Macs


@dataclass
class SizeFigures:
    """Of one size of the result.

    Attributes:
        canvas: height and width of the canvas that it took, with the border that its frame has.
        counted: multiply-accumulates of a picture.
        peak_memory_bytes: see :func:`pgp_core.bench.memory.peak_memory`, above what the process held before the model
            was read; 0 where it cannot be had.
        seconds: of each timed run.
        error: why there are no figures, in one line.
        lacks_memory: whether that is for want of memory.
    """

    canvas: tuple[int, int] = (0, 0)
    counted: Counted = field(default_factory=Counted)
    peak_memory_bytes: int = 0
    seconds: list[float] = field(default_factory=list)
    error: str | None = None
    lacks_memory: bool = False

    @property
    def macs(self) -> Macs:
        """Of all parts."""
        parts = self.counted.parts.values()
        return Macs(sum(p.dense for p in parts), sum(p.attention for p in parts))

    @property
    def median(self) -> float | None:
        """Of the seconds."""
        return statistics.median(self.seconds) if self.seconds else None


@dataclass
class RowFigures:
    """Of one model.

    Attributes:
        name: of the row.
        what: what the model is, in words.
        settings: how it was used.
        parameters: of its parts; the text encoders', which are gone when it is loaded, are those of their files.
        dtypes: of its parts' parameters.
        prompts: how many are encoded for a picture; 0 where they are saved.
        prompt_macs: of encoding one.
        alone: whether it was measured after the others, which left it no room.
        sizes: side of the result to its figures.
        error: why there are none at all.
    """

    name: str
    what: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    prompts: int = 0
    prompt_macs: Macs = field(default_factory=Macs)
    alone: bool = False
    sizes: dict[int, SizeFigures] = field(default_factory=dict)
    error: str | None = None

    @property
    def total(self) -> int:
        """Parameters of all parts."""
        return sum(self.parameters.values())


@dataclass
class Efficiency:
    """The whole measurement.

    Attributes:
        sizes: sides of the results, in pixels.
        runs: that were timed.
        machine: what it ran on.
    """

    rows: list[RowFigures]
    sizes: Sequence[int]
    runs: int
    machine: Mapping[str, Any]

    def ratios(self, row: RowFigures, size: int) -> dict[str, float | None]:
        """To the first row: of parameters, multiply-accumulates, seconds and memory; None where one has none."""
        first = self.rows[0]
        here, there = row.sizes.get(size, SizeFigures()), first.sizes.get(size, SizeFigures())
        return {
            "parameters": _ratio(row.total, first.total),
            "macs": _ratio(here.macs.total, there.macs.total),
            "seconds": _ratio(here.median, there.median),
            "peak_memory": _ratio(here.peak_memory_bytes, there.peak_memory_bytes),
        }

    def to_json(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "sizes": list(self.sizes),
            "runs": self.runs,
            **self.machine,
            "rows": [self._row(row) for row in self.rows],
        }

    def _row(self, row: RowFigures) -> dict[str, Any]:
        return {
            "row": row.name,
            "what": row.what,
            "settings": row.settings,
            "parameters": {**{p: row.parameters[p] for p in PARTS if p in row.parameters}, "total": row.total},
            "dtypes": row.dtypes,
            "text": {
                "saved": "text_encoder" not in row.parameters,
                "prompts": row.prompts,
                "macs_of_a_prompt": _macs(row.prompt_macs),
            },
            "measured_alone": row.alone,
            "error": row.error,
            "results": [self._size(row, size) for size in self.sizes if size in row.sizes],
        }

    def _size(self, row: RowFigures, size: int) -> dict[str, Any]:
        found = row.sizes[size]
        if found.error is not None:
            return {"size": size, "error": found.error}
        return {
            "size": size,
            "canvas": list(found.canvas),
            "unet_calls": found.counted.calls.get("unet", 0),
            "macs": {**{p: _macs(m) for p, m in found.counted.parts.items()}, "all": _macs(found.macs)},
            "macs_inside": {
                part: {child: _macs(m) for child, m in found.counted.inside[part].items() if child}
                for part in ("vae", "guidance")
                if part in found.counted.inside
            },
            "seconds": {
                "median": found.median,
                "min": min(found.seconds, default=None),
                "max": max(found.seconds, default=None),
                "runs": found.seconds,
            },
            "peak_memory_bytes": found.peak_memory_bytes or None,
            "ratios": self.ratios(row, size),
        }


def _macs(macs: Macs) -> dict[str, int]:
    return {"dense": macs.dense, "attention": macs.attention, "total": macs.total}


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None
