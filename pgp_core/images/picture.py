"""A picture in memory: what the model gets to see of it, and how the result is put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    # Reading and measuring pictures does not wait for it.
    import torch

#: BT.601, as Pillow's own conversion to grey.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Metadata:
    """What goes from the input's file to the result's, as far as its format can hold it.

    Attributes:
        icc: profile that the pixels are in; they are never converted from it, so it stays true.
        exif, xmp: of an upright picture, without thumbnails; in order, whatever the file held.
        iptc, comment: as they are in JPEG.
        text: PNG's text chunks, ComfyUI's workflows among them.
        dpi: pixels per inch along both axes.
        chunks: PNG's chunks that say what colours its values mean and have no ICC profile for it.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    chunks: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """An opened picture, upright.

    Attributes:
        pixels: ``(H, W, 1)`` grey or ``(H, W, 3)`` RGB, uint8 or uint16.
        alpha: ``(H, W)`` of the same type, or None; no colour is multiplied by it.
        metadata: of the file.
        frames: how many pictures the file holds; this is the first, or the main one.
        notes: what was left out or decided when it was read, a line each, for the user.
    """

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    alpha: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | None = None
    metadata: Metadata = Metadata()
    frames: int = 1
    notes: tuple[str, ...] = ()

    @property
    def white(self) -> int:
        """The largest level: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    def rgb(self) -> torch.Tensor:
        """``(1, 3, H, W)`` float32 in [0, 1]; grey is repeated, the visible colours are carried under what is
        transparent."""
        from .transparency import bleed

        return bleed(self.channels(), self.white)[:, :3] if self.alpha is not None else self.channels()

    def channels(self) -> torch.Tensor:
        """``(1, 3 or 4, H, W)`` float32 in [0, 1] as they are in the file, the fourth is alpha; grey is repeated."""
        import torch

        rgb = _floats(self.pixels).expand(-1, 3, -1, -1)
        return rgb if self.alpha is None else torch.cat([rgb, _floats(self.alpha[..., None])], 1)

    def enlarged(self, result: torch.Tensor) -> Picture:
        """The result of the model as a picture of this one's kind: grey if this is grey, as deep as this,
        with its alpha, and its metadata.

        Args:
            result: ``(3, H, W)`` or ``(4, H, W)`` in [0, 1]; without alpha it is this picture's, enlarged.
        """
        from .resampling import resample
        from .transparency import without_ringing

        rgb, alpha = result[:3], result[3:]
        if self.pixels.shape[-1] == 1:
            red, green, blue = (weight * plane for weight, plane in zip(LUMA, rgb, strict=True))
            rgb = (red + green + blue)[None]
        if self.alpha is None:
            return replace(self, pixels=self._levels(rgb), frames=1, notes=())
        if not len(alpha):
            own = _floats(self.alpha[..., None])
            alpha = without_ringing(own, resample(own, result.shape[-1], result.shape[-2]))[0]
        return replace(self, pixels=self._levels(rgb), alpha=self._levels(alpha)[..., 0], frames=1, notes=())

    def _levels(self, x: torch.Tensor) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """``(C, H, W)`` in [0, 1] to ``(H, W, C)``, rounded."""
        levels = x.float().cpu().clamp(0, 1).mul(self.white).round().numpy().astype(self.pixels.dtype)
        return np.ascontiguousarray(levels.transpose(1, 2, 0))


def _floats(levels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> torch.Tensor:
    """``(H, W, C)`` to ``(1, C, H, W)`` float32 in [0, 1]."""
    import torch

    scaled = levels.astype(np.float32) / np.iinfo(levels.dtype).max
    return torch.from_numpy(scaled).permute(2, 0, 1)[None]
