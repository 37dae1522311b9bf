"""Pictures that a model makes for a benchmark, as ``upscale`` makes them, of their HQ picture's exact size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...batch.marks import marked, origin_of
from ...errors import PGPError, PictureError
from ...images.picture import Metadata, Picture
from ...images.writing import save_picture
from . import pictures
from .kept import Kept
from .results import Pair

if TYPE_CHECKING:
    from ...progress import Progress
    from ...restorers.given import Given
    from ...restorers.recipe import Recipe
    from ...restorers.restorer import Restorer
    from ...sampling.options import SampleOptions

#: Endings of files that a model is made of.
_OF_MODELS = {".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".pkl", ".gguf", ".json"}


def restored(
    restorer: Restorer, pair: Pair, kept: Kept, recipe: Recipe, options: SampleOptions, progress: Progress | None = None
) -> float:
    """Make a pair's picture and write it.

    Returns:
        seconds that the model took: canvas, restoration, colours.

    Raises:
        PGPError: if a picture cannot be read, the two are not of one shape, or the result cannot be written.
        Cancelled: when ``progress`` returned False.
    """
    import torch

    from ...images.sizes import Size
    from ...restorers.upscale import upscale

    assert pair.lq is not None and pair.hq is not None
    lq, width, height = _both(pair.lq, pair.hq)
    started = time.perf_counter()
    size = Size(both=(width, height))
    result = upscale(restorer, lq.channels(), size, options, recipe.color_fix, progress, fidelity=recipe.fidelity)
    seconds = time.perf_counter() - started
    if not bool(torch.isfinite(result).all()):
        raise PictureError("the model's result holds numbers that are not finite")
    larger = lq.enlarged(result[0])
    # Its profile says what its values mean; the rest is of no use here.
    larger = replace(larger, metadata=marked(Metadata(icc=larger.metadata.icc), origin_of(pair.lq)))
    save_picture(larger, kept.path(pair.name))
    kept.add(pair.name, round(seconds, 3))
    return seconds


def _both(lq: Path, hq: Path) -> tuple[Picture, int, int]:
    """The LQ picture, and its HQ picture's size."""
    try:
        reference = pictures.size(pictures.read(hq))
    except PGPError as e:
        raise PictureError(f"its HQ picture: {e}") from None
    try:
        picture = pictures.read(lq)
    except PGPError as e:
        raise PictureError(f"its LQ picture: {e}") from None
    pictures.check_shapes(pictures.size(picture), reference)
    return picture, *reference


def model_files(given: Given) -> Iterator[Path]:
    """All files that a model is made of."""
    from ...restorers.nano.model import Files

    if given.bundled:
        yield from _inside(Files().folder)
    for path in given.files():
        if path.is_dir():
            yield from _inside(path)
        elif path.exists():
            yield path


def digests(given: Given) -> dict[str, str]:
    """SHA-256 of all files of a model, by their folder's and own name."""
    from ...files.checkpoints import sha256

    return {f"{file.parent.name}/{file.name}": sha256(file) for file in model_files(given)}


def _inside(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in _OF_MODELS and not hidden and path.is_file():
            yield path
