"""One picture's figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...batch.failures import lacks_memory
from ...errors import PGPError, PictureError
from ...files.boundary import first_line
from ...images.picture import Picture
from ...images.writing import save_picture
from ..metrics import METRICS
from . import pictures


@dataclass(frozen=True)
class Job:
    """A picture to be judged.

    Attributes:
        row, pair: whose it is.
        file: the picture.
        hq, lq: what it is compared with, as far as there is any.
        metrics: names.
        bicubic: make ``file`` of the LQ picture first.
    """

    row: str
    pair: str
    file: Path
    hq: Path | None
    lq: Path | None
    metrics: tuple[str, ...]
    bicubic: bool = False


@dataclass
class Judgement:
    """What came of it.

    Attributes:
        row, pair: of the job.
        scores: metric to value; None where it is not finite, or could not be measured.
        error: why there are no scores at all, in one line.
        problems: metric to why it could not be measured.
        transparent: whether one of the pictures is.
    """

    row: str
    pair: str
    scores: dict[str, float | None] = field(default_factory=dict)
    error: str | None = None
    problems: dict[str, str] = field(default_factory=dict)
    transparent: bool = False


def judge(job: Job, measures: Mapping[str, Callable[..., float]] | None = None) -> Judgement:
    """Measure one picture; whatever goes wrong is said in what is returned.

    Args:
        measures: of metrics that are networks, once loaded.
    """
    found = Judgement(job.row, job.pair)
    try:
        _judge(job, measures or {}, found)
    except Exception as e:
        found.error = _line(job, e)
    return found


def _judge(job: Job, measures: Mapping[str, Callable[..., float]], found: Judgement) -> None:
    references = {which: _named(path, which) for which, path in (("hq", job.hq), ("lq", job.lq)) if path is not None}
    if "hq" in references and "lq" in references:
        pictures.check_shapes(pictures.size(references["lq"]), pictures.size(references["hq"]))
    if job.bicubic:
        made = pictures.bicubic(references["lq"], *pictures.size(references["hq"]))
        save_picture(made, job.file)
    result = pictures.read(job.file)
    if "hq" in references:
        pictures.same_size(pictures.size(result), pictures.size(references["hq"]))
    found.transparent = any(map(pictures.transparent, (result, *references.values())))
    arrays = {which: pictures.rgb(picture) for which, picture in references.items()}
    ours = pictures.rgb(result)
    for name in job.metrics:
        metric = METRICS[name]
        measure = measures.get(name) or metric.measure
        if measure is None or (metric.reference is not None and metric.reference not in arrays):
            continue
        try:
            value = float(measure(ours, arrays[metric.reference]) if metric.reference else measure(ours))
        except (PGPError, ArithmeticError, ValueError, RuntimeError) as e:
            if lacks_memory(e):
                raise
            found.scores[name], found.problems[name] = None, first_line(e)
            continue
        found.scores[name] = value if math.isfinite(value) else None


def _named(path: Path, which: str) -> Picture:
    try:
        return pictures.read(path)
    except PGPError as e:
        raise PictureError(f"its {which.upper()} picture: {e}") from None


def _line(job: Job, error: Exception) -> str:
    if lacks_memory(error):
        return "there is not enough memory for it: fewer --workers take less"
    if isinstance(error, PGPError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"
