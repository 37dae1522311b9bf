"""A page to draw on: size, type, colours, and the way to pixels.

Nothing here depends on matplotlib's global state (pyplot, rcParams): in ComfyUI other packs change it. What is
drawn is laid out for a page 1024 pixels wide, with text that can still be read when a node shows it at 512.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import PGPError
from ..extras import library

WIDTH = 1024
DPI = 100
#: Sizes of type in points; 14 are 19 pixels of a page 1024 wide.
TITLE, TEXT, SMALL = 17, 15, 14
INK, FAINT, PAPER = "#111111", "#b8b8b8", "#ffffff"

_LEAST, _MOST = 128, 16_384
_DRAWING = threading.Lock()

P = ParamSpec("P")
R = TypeVar("R")
Pixels = npt.NDArray[np.uint8]


def matplotlib(module: str = "") -> Any:
    """A module of matplotlib, or its package.

    Raises:
        PGPError: naming the command that installs it.
    """
    name = f"matplotlib.{module}" if module else "matplotlib"
    return library(name, "a plot", "matplotlib", "plot", ", or in ComfyUI's Python: python -m pip install matplotlib")


def alone(draw: Callable[P, R]) -> Callable[P, R]:
    """Let one thread draw at a time: matplotlib's caches of type are not safe between threads."""

    @wraps(draw)
    def locked(*args: P.args, **kwargs: P.kwargs) -> R:
        with _DRAWING:
            return draw(*args, **kwargs)

    return locked


class Page:
    """An empty page.

    Args:
        needs: height in pixels that the drawing needs at a width of 1024.
        width: of the picture.
        height: of the picture; None for what it needs at that width. If both leave more room in one direction
            than the drawing needs, it spreads in that direction.

    Attributes:
        figure: matplotlib's Figure.
        size: width and height in layout pixels: at least 1024 and ``needs``.

    Raises:
        PGPError: for a size below 128 or above 16384, or if matplotlib is missing.
    """

    def __init__(self, needs: float, width: int = WIDTH, height: int | None = None):
        if height is None:
            height = round(needs * width / WIDTH)
        for what, pixels in ("width", width), ("height", height):
            if not _LEAST <= pixels <= _MOST:
                raise PGPError(
                    f"a plot's {what} must be {_LEAST} to {_MOST} pixels, not {pixels}: "
                    "choose another size, or plot fewer pictures"
                )
        scale = min(width / WIDTH, height / needs)
        dpi = DPI * scale
        self.size = width / scale, height / scale
        # The hundredth of a pixel keeps matplotlib, which cuts, from losing a whole one to rounding.
        inches = (width + 0.01) / dpi, (height + 0.01) / dpi
        self.figure = matplotlib("figure").Figure(
            figsize=inches, dpi=dpi, facecolor=PAPER, edgecolor=PAPER, frameon=True, layout="none"
        )
        matplotlib("backends.backend_agg").FigureCanvasAgg(self.figure)
        self._face = Path(matplotlib().get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")

    def type(self, size: float = TEXT) -> Any:
        """Font properties: the face that matplotlib brings along."""
        return matplotlib("font_manager").FontProperties(fname=str(self._face), size=size)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Axes at a place in layout pixels, measured from the page's upper left corner."""
        w, h = self.size
        axes = self.figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))
        axes.set_facecolor(PAPER)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set(color=INK, linewidth=1.0, visible=True)
        for axis in axes.xaxis, axes.yaxis:
            axis.set_tick_params(which="both", size=5, width=1.0, pad=5, color=INK, labelcolor=INK, direction="out")
            axis.set_tick_params(which="minor", size=0, width=0)
        axes.tick_params(which="both", bottom=True, left=True, top=False, right=False, labeltop=False, labelright=False)
        axes.grid(visible=False, which="both")
        return axes

    def label_ticks(self, axes: Any, size: float = SMALL) -> None:
        """Set the face of the tick labels; after the ticks are final."""
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_fontproperties(self.type(size))

    def text(self, x: float, y: float, text: str, size: float = TEXT, **more: Any) -> Any:
        """Text at a place in layout pixels from the upper left corner; names of people's files are not TeX."""
        w, h = self.size
        more = {"color": INK, "ha": "left", "va": "top", "parse_math": False, **more}
        return self.figure.text(x / w, 1 - y / h, text, fontproperties=self.type(size), **more)

    def fitted(self, text: str, room: float, size: float = TEXT) -> str:
        """``text`` on one line, cut with an ellipsis where it is wider than ``room`` layout pixels."""
        text = " ".join(text.split())
        renderer = self.figure.canvas.get_renderer()
        scale = self.figure.dpi / DPI

        def wide(candidate: str) -> bool:
            extent, _, _ = renderer.get_text_width_height_descent(candidate, self.type(size), False)
            return bool(extent / scale > room)

        if not wide(text):
            return text
        fits, too_many = 0, len(text)
        while too_many - fits > 1:
            half = (fits + too_many) // 2
            fits, too_many = (fits, half) if wide(text[:half] + "…") else (half, too_many)
        return text[:fits] + "…"

    def note(self, text: str) -> None:
        """Text in the middle of the page, for what there is nothing to draw of."""
        self.text(self.size[0] / 2, self.size[1] / 2, text, TITLE, ha="center", va="center")

    def pixels(self) -> Pixels:
        """Draw: ``(height, width, 3)`` uint8."""
        self.figure.canvas.draw()
        return np.asarray(self.figure.canvas.buffer_rgba())[..., :3].copy()
