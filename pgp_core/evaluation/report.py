"""Run an evaluation on files and write what it found."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import PGPError, PictureError
from ..files.atomic import replacing
from ..files.checkpoints import sha256
from ..progress import Progress
from ..restorers.nano import model as nano
from ..restorers.nano.restorer import NanoRestorer
from . import mechanism, quality
from .cases import cases
from .sheet import sheet


def run(
    which: str,
    folder: Path = nano.FOLDER,
    seeds: Sequence[int] = (0,),
    out_dir: Path | None = None,
    progress: Progress | None = None,
    denoise: float = quality.DENOISE,
) -> dict[str, Any]:
    """Load nano from ``folder``, evaluate it, write the result.

    Args:
        which: ``"quality"`` or ``"mechanism"``.
        folder: with the four files of :mod:`pgp_core.restorers.nano.model`.
        seeds: of sampling; at least one.
        out_dir: gets ``<which>.json`` and ``<which>.md``, for quality also ``quality.png`` (the contact sheet,
            with the first seed); made if need be. None writes nothing.
        progress: called after each picture.
        denoise: see :func:`pgp_core.evaluation.quality.quality_table`.

    Returns:
        the table's data, with ``weights``: file to SHA-256.

    Raises:
        PGPError: if ``which`` is unknown, a seed is missing, or the evaluation's libraries are.
        CheckpointError, GuidanceError, PlanError: if a file is missing or damaged.
        PictureError: if a result cannot be written; no half-written file stays.
        Cancelled: when ``progress`` returned False; nothing is written.
    """
    if which not in ("quality", "mechanism"):
        raise PGPError(f'there is an evaluation of "quality" and one of "mechanism", not {which!r}')
    if not seeds:
        raise PGPError("an evaluation needs at least one seed")
    if out_dir is not None:
        _make(out_dir)
    one_step, multi_step = (NanoRestorer.load(one_step=o, folder=folder) for o in (True, False))
    files: dict[str, bytes] = {}
    if which == "quality":
        seen: dict[str, dict[str, Image.Image]] = {"bicubic": {}, "one_step": {}, "noise": {}}

        def keep(row: str, name: str, seed: int | None, picture: Image.Image) -> None:
            if row in seen and seed in (None, seeds[0]):
                seen[row][name] = picture

        data = quality.quality_table(one_step, multi_step, seeds, denoise, progress, on_picture=keep)
        text = quality.render_markdown(data)
        files["quality.png"] = _png(_columns(seen))
    else:
        data = mechanism.mechanism_table(one_step, multi_step, seeds, progress)
        text = mechanism.render_markdown(data)
    names = (nano.UNET_FILE, nano.GUIDANCE_FILE, nano.CONTEXTS_FILE, nano.S1_FILE)
    data["weights"] = {name: sha256(folder / name) for name in names}
    files |= {f"{which}.json": (json.dumps(data, indent=1) + "\n").encode(), f"{which}.md": text.encode()}
    if out_dir is not None:
        for name, content in files.items():
            _write(out_dir / name, content)
    return data


def _columns(seen: dict[str, dict[str, Image.Image]]) -> dict[str, dict[str, Image.Image]]:
    found = cases()
    return {
        "HQ": {c.name: c.hq for c in found},
        "LQ": {c.name: c.lq for c in found},
        "bicubic": seen["bicubic"],
        "one step": seen["one_step"],
        f"{quality.STEPS} steps from noise": seen["noise"],
    }


def _png(columns: dict[str, dict[str, Image.Image]]) -> bytes:
    buffer = io.BytesIO()
    sheet(columns).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _make(folder: Path) -> None:
    """Before the work, so that a wrong path is not found out after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise PictureError(f"{folder} cannot be made: {e}") from None


def _write(path: Path, content: bytes) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as e:
        raise PictureError(f"{path} cannot be written: {e}") from None
