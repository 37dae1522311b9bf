"""What a benchmark has found: data that every table, file and page is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Pair:
    """A picture to be judged by.

    Attributes:
        name: by which it is known in every row: the HQ file's stem; without HQ that of the picture.
        lq: the LQ file; None where only finished pictures are looked at.
        hq: the HQ file; None where there is none.
    """

    name: str
    lq: Path | None = None
    hq: Path | None = None


@dataclass
class Row:
    """One way to restore.

    Attributes:
        name: of the row: ``bicubic``, the folder's or the model's name; no two rows share one.
        kind: ``"bicubic"``, ``"folder"`` (finished results) or ``"model"``.
        settings: how it was made, JSON data: for a model its recipe, seed, files with their SHA-256; for a folder its
            path.
        files: pair's name to the picture that was judged.
        scores: pair's name to metric to value; None where a number is not finite or could not be measured.
        failed: pair's name to one line that says what was wrong; such a pair has no scores in this row.
        seconds: pair's name to the seconds that the model took.
    """

    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class Results:
    """A whole benchmark.

    Attributes:
        kind: ``"pairs"``, or ``"pictures"`` without references.
        pairs: all that were matched, in the order of their names.
        rows: bicubic first.
        metrics: names of the columns, in their order; those that ``missing`` holds too.
        missing: metric to one line that says why it has no figures and what to do.
        unmatched: one line for each file without a partner.
        made: versions, date, machine and command: what a reader needs to make it again.
    """

    kind: str
    pairs: list[Pair]
    rows: list[Row]
    metrics: list[str]
    missing: dict[str, str] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)
