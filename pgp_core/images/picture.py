"""A picture in memory: what the model sees of it, and what is put back together afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from ..canvas import resample
from ..wrap import Wrap

#: BT.601, as Pillow's own conversion to grey.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Metadata:
    """What goes from the input's file to the result's, as far as its format can hold it.

    Attributes:
        icc: profile that the pixels are in; they are never converted from it, so it stays true.
        exif, xmp: without orientation, as the pixels are upright.
        text: PNG's text chunks, ComfyUI's workflows among them.
        dpi: pixels per inch along both axes.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None


@dataclass(frozen=True)
class Picture:
    """An opened picture, upright.

    Attributes:
        pixels: ``(H, W, 1)`` grey or ``(H, W, 3)`` RGB, uint8 or uint16.
        alpha: ``(H, W)`` of the same type, or None.
        metadata: of the file.
        frames: how many pictures the file holds; this is the first.
    """

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    alpha: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | None = None
    metadata: Metadata = Metadata()
    frames: int = 1

    @property
    def white(self) -> int:
        """The largest level: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    def rgb(self) -> torch.Tensor:
        """``(1, 3, H, W)`` float32 in [0, 1]; grey is repeated."""
        return _floats(self.pixels).expand(-1, 3, -1, -1)

    def enlarged(self, rgb: torch.Tensor, wrap: str = "none") -> Picture:
        """The result of the model as a picture of this one's kind: grey if this is grey, as deep as this,
        with this one's alpha at the new size, and its metadata.

        Args:
            rgb: ``(3, H, W)`` in [0, 1].
            wrap: one of :data:`pgp_core.wrap.WRAPS`: along which axes it repeats.
        """
        if self.pixels.shape[-1] == 1:
            rgb = sum((weight * plane for weight, plane in zip(LUMA, rgb, strict=True)), torch.zeros(1))[None]
        alpha = None
        if self.alpha is not None:
            height, width = rgb.shape[-2:]
            alpha = self._levels(resample(_floats(self.alpha[..., None]), width, height, Wrap(wrap))[0])[..., 0]
        return replace(self, pixels=self._levels(rgb), alpha=alpha, frames=1)

    def _levels(self, x: torch.Tensor) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """``(C, H, W)`` in [0, 1] to ``(H, W, C)``, rounded."""
        levels = x.float().cpu().clamp(0, 1).mul(self.white).round().numpy().astype(self.pixels.dtype)
        return np.ascontiguousarray(levels.transpose(1, 2, 0))


def _floats(levels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> torch.Tensor:
    """``(H, W, C)`` to ``(1, C, H, W)`` float32 in [0, 1]."""
    scaled = levels.astype(np.float32) / np.iinfo(levels.dtype).max
    return torch.from_numpy(scaled).permute(2, 0, 1)[None]
