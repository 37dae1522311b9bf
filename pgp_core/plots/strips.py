"""Strips of pictures: feature maps over timesteps (Figure 3a) and phase-only reconstructions (Figure 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ..errors import PictureError
from ..guidance.phase import phase_only
from .page import SMALL, TITLE, WIDTH, Page, Pixels, alone, matplotlib

_EDGE, _GAP, _HEAD, _CAPTION = 20, 12, 56, 30
#: Beyond this ratio of its sides a map is drawn with bars above or beside it.
_LONGEST = 3.0


@alone
def feature_maps(
    maps: Sequence[tuple[str, torch.Tensor]],
    columns: int | None = None,
    title: str = "Feature maps, mean of channels, each on its own scale",
    width: int = WIDTH,
    height: int | None = None,
) -> Pixels:
    """Draw the mean over channels of each map, dark for its smallest value and bright for its largest.

    Args:
        maps: caption (``t = 999``) and features ``(C, H, W)`` or ``(H, W)``, of any dtype and range; sizes may
            differ. Values that are not finite are drawn white and the caption says so.
        columns: maps in a row; None for as many as there are, at most five.
        title: above them.
        width: in pixels.
        height: in pixels; None for what the maps need.

    Raises:
        PictureError: for features of another number of axes, or empty ones.
        PGPError: for a size that cannot be, or if matplotlib is missing.
    """
    shown = []
    for caption, features in maps:
        pixels, whole = _colours(features)
        shown.append((caption if whole else f"{caption} (NaN)", pixels))
    return _grid(shown, columns, 5, title, width, height)


@alone
def phase_strip(
    pictures: Sequence[torch.Tensor] | torch.Tensor,
    columns: int | None = None,
    width: int = WIDTH,
    height: int | None = None,
) -> Pixels:
    """Draw each picture with its phase-only reconstruction at its right.

    Args:
        pictures: each ``(3, H, W)`` in [0, 1]; as a batch, or of different sizes.
        columns: pairs in a row; None for two, or one if there is one picture.
        width: in pixels.
        height: in pixels; None for what the pictures need.

    Raises:
        PictureError: for another shape.
        PGPError: for a size that cannot be, or if matplotlib is missing.
    """
    if not len(pictures) or any(p.ndim != 3 for p in pictures):
        raise PictureError(f"pictures must have the shape (3, H, W), not {[tuple(p.shape) for p in pictures]}")
    shown = []
    for picture in pictures:
        shown += [("picture", _rgb(picture)), ("phase only", _rgb(visible_phase(picture[None])[0]))]
    pairs = columns if columns is not None else min(2, len(pictures))
    title = "Pictures, and what their phase alone holds"
    return _grid(shown, pairs * 2, 4, title, width, height)


def visible_phase(pictures: torch.Tensor) -> torch.Tensor:
    """Phase-only reconstructions, scaled so that one can see them.

    Zero is middle grey; the scale is each picture's own and cuts the two per cent of largest values, which are
    far from the rest.

    Args:
        pictures: ``(B, 3, H, W)`` in [0, 1].

    Returns:
        ``(B, 3, H, W)`` float32 in [0, 1].

    Raises:
        PictureError: for another shape.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3 or 0 in pictures.shape:
        raise PictureError(f"pictures must have the shape (B, 3, H, W), not {tuple(pictures.shape)}")
    phases = phase_only(torch.nan_to_num(pictures.detach().float()))
    ordered = phases.abs().flatten(1).sort(dim=1).values
    reach = ordered[:, math.ceil(0.98 * ordered.shape[1]) - 1]
    reach = torch.where(reach > 0, reach, torch.ones_like(reach))[:, None, None, None]
    return (0.5 + phases / (2 * reach)).clamp(0, 1)


def _rgb(picture: torch.Tensor) -> npt.NDArray[np.float32]:
    pixels = torch.nan_to_num(picture.detach().float()).clamp(0, 1)
    return np.asarray(pixels.movedim(0, -1).cpu().numpy(), dtype=np.float32)


def _colours(features: torch.Tensor) -> tuple[npt.NDArray[np.float32], bool]:
    """``(H, W, 3)`` in [0, 1], white where the mean is not finite; and whether it is finite everywhere."""
    if features.ndim not in (2, 3) or 0 in features.shape:
        raise PictureError(f"features must have the shape (C, H, W) or (H, W), not {tuple(features.shape)}")
    # CPU first: MPS has no float64.
    plane = features.detach().cpu().double()
    values = (plane.mean(0) if plane.ndim == 3 else plane).numpy()
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    # Halved, or the difference of the largest numbers would overflow.
    reach = high / 2 - low / 2
    share = np.where(finite, (values / 2 - low / 2) / (reach if reach > 0 else 1.0), 0.0)
    colours = matplotlib().colormaps["cividis"](np.clip(share, 0, 1))[..., :3]
    return np.where(finite[..., None], colours, 1.0).astype(np.float32), bool(finite.all())


def _grid(
    pictures: list[tuple[str, npt.NDArray[np.float32]]],
    columns: int | None,
    most: int,
    title: str,
    width: int,
    height: int | None,
) -> Pixels:
    if columns is not None and columns < 1:
        raise PictureError(f"a strip needs at least one column, not {columns}")
    across = columns or max(1, min(len(pictures), most))
    each = (WIDTH - 2 * _EDGE - (across - 1) * _GAP) / across
    ratio = max((p.shape[0] / p.shape[1] for _, p in pictures), default=0.5)
    tall = each * min(max(ratio, 1 / _LONGEST), _LONGEST)
    rows = math.ceil(len(pictures) / across)
    page = Page(_HEAD + max(rows * (tall + _CAPTION + _GAP), 160) + _EDGE - _GAP, width, height)
    w, h = page.size
    page.text(_EDGE, 16, page.fitted(title, w - 2 * _EDGE, TITLE), TITLE)
    if not pictures:
        page.note("nothing to show")
        return page.pixels()
    each = (w - 2 * _EDGE - (across - 1) * _GAP) / across
    tall = (h - _HEAD - _EDGE + _GAP) / rows - _CAPTION - _GAP
    for i, (caption, pixels) in enumerate(pictures):
        left = _EDGE + (i % across) * (each + _GAP)
        top = _HEAD + (i // across) * (tall + _CAPTION + _GAP)
        page.text(left + each / 2, top + 2, page.fitted(caption, each, SMALL), SMALL, ha="center")
        axes = page.axes(left, top + _CAPTION, each, tall)
        axes.imshow(pixels, aspect="equal", interpolation="antialiased", origin="upper", resample=True)
        axes.set(xticks=[], yticks=[], anchor="N")
        for spine in axes.spines.values():
            spine.set(linewidth=0.8, color="#777777")
    return page.pixels()
