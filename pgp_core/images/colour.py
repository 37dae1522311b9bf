"""Colour spaces: profiles that fit the pixels, and pixels of other spaces converted to sRGB."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

#: White, red, green and blue of a space, as x and y; D65's white.
_WHITE = (0.3127, 0.3290)
_SRGB = (*_WHITE, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
#: By their numbers in cICP (ITU-T H.273).
_PRIMARIES = {
    1: _SRGB,
    9: (*_WHITE, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_WHITE, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
#: Exponents by the number of the transfer function; None is sRGB's curve. PQ (16) and HLG (18) have none.
_TRANSFER: dict[int, float | None] = {4: 2.2, 5: 2.8, 8: 1.0, 13: None}
_PQ, _HLG = 16, 18
#: sRGB's gAMA and cHRM, and what differs from them by rounding.
_SRGB_GAMMA = 1 / 2.2
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def space(icc: bytes) -> str:
    """Colour space of a profile: "RGB", "GRAY", "CMYK", or "" for a damaged one."""
    try:
        return str(ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space).strip()
    except Exception:
        # Little CMS reads it, which is C: whatever it raises, there is no profile.
        return ""


def is_white(where: Any) -> bool:
    """Whether x and y are those of a white that there can be."""
    try:
        white = _xyz(*map(float, where))
    except (TypeError, ValueError, ArithmeticError):
        return False
    return bool(np.isfinite(white).all() and white.min() > 0 and white.max() <= 4)


def to_srgb(image: Image.Image, icc: bytes | None, white: Any = None) -> Image.Image:
    """CMYK or Lab to RGB, by its profile if that is in order.

    Args:
        white: x and y of the white that Lab without a profile is relative to, where a file says so; see
            :func:`is_white`. Of others it is D50, as in ICC profiles.
    """
    srgb = ImageCms.createProfile("sRGB")
    try:
        if image.mode == "LAB" and not icc and white is not None:
            return _of_lab(image, _xyz(*map(float, white)))
        own: Any = ImageCms.ImageCmsProfile(io.BytesIO(icc)) if icc else None
        if image.mode == "LAB":
            own = own or ImageCms.createProfile("LAB")
        if own is not None:
            converted = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
            if converted is not None:
                return converted
    except Exception:
        # The plain conversion is what is left.
        pass
    return image.convert("RGB")


def _of_lab(image: Image.Image, white: npt.NDArray[np.float64]) -> Image.Image:
    """Lab of 8 bits relative to a white (CIE 15, by Bradford's adaptation) to sRGB (IEC 61966-2-1).

    Little CMS is of no use here: it takes all Lab for D50's.
    """
    d65 = _xyz(*_WHITE)
    colours = np.stack([_xyz(*_SRGB[i : i + 2]) for i in (2, 4, 6)], 1)
    cones = np.diag((_BRADFORD @ d65) / (_BRADFORD @ white))
    adapted = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ np.diag(white)
    to_rgb = np.linalg.inv(colours * np.linalg.solve(colours, d65)) @ adapted
    levels = np.asarray(image)
    out = np.empty(levels.shape, np.uint8)
    # A few rows at a time: in floating point a large picture takes eight times as much.
    for top in range(0, len(levels), 256):
        lightness = levels[top : top + 256, :, 0] * np.float32(100 / 255)
        a, b = (levels[top : top + 256, :, i].astype(np.int8).astype(np.float32) for i in (1, 2))
        y = (lightness + 16) / 116
        f = np.stack([y + a / 500, y, y - b / 200], -1)
        xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
        light = np.clip(xyz @ to_rgb.T, 0, 1)
        curved = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        out[top : top + 256] = np.rint(curved * 255)
    return Image.fromarray(out)


def of_chunks(chunks: Mapping[bytes, bytes]) -> tuple[bytes | None, str]:
    """A profile that says what PNG's cICP, or its gAMA and cHRM, say, and what cannot be said by one.

    None where they say sRGB, or nothing.
    """
    cicp = chunks.get(b"cICP", b"")
    if len(cicp) == 4:
        primaries, transfer = _PRIMARIES.get(cicp[0]), cicp[1]
        if transfer in (_PQ, _HLG) or primaries is None or cicp[3] != 1:
            name = {_PQ: "PQ", _HLG: "HLG"}.get(transfer, "a rare kind")
            return None, f"the colour space (cICP, {name}): the result will look different"
        # The curves of video are close to sRGB's, as they are shown.
        gamma = _TRANSFER.get(transfer)
        return (None, "") if primaries == _SRGB and gamma is None else (profile(primaries, gamma), "")
    if b"sRGB" in chunks:
        return None, ""
    gamma, where = _gamma(chunks.get(b"gAMA", b"")), _chromaticities(chunks.get(b"cHRM", b""))
    plain = gamma is None or abs(1 / gamma - _SRGB_GAMMA) < 0.005
    if plain and (where is None or max(abs(a - b) for a, b in zip(where, _SRGB, strict=True)) < 0.002):
        return None, ""
    try:
        made = profile(where or _SRGB, None if plain else gamma)
    except Exception:
        # Senseless numbers make arithmetic fail in many ways.
        return None, "the colour space (cHRM, gAMA: no such colours)"
    return made, ""


def _gamma(body: bytes) -> float | None:
    value = int.from_bytes(body, "big") if len(body) == 4 else 0
    return 100000 / value if 10000 <= value <= 1000000 else None


def _chromaticities(body: bytes) -> tuple[float, ...] | None:
    return tuple(v / 100000 for v in struct.unpack(">8I", body)) if len(body) == 32 else None


def profile(where: tuple[float, ...], gamma: float | None) -> bytes:
    """An ICC profile (version 2, matrix and curve) of a space.

    Args:
        where: x and y of white, red, green and blue.
        gamma: exponent from levels to light; None for sRGB's curve.

    Raises:
        ValueError, numpy.linalg.LinAlgError, ZeroDivisionError, OverflowError: if there are no such colours.
    """
    white = _xyz(where[0], where[1])
    colours = np.stack([_xyz(*where[i : i + 2]) for i in (2, 4, 6)], 1)
    to_xyz = colours * np.linalg.solve(colours, white)
    cones = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ to_xyz
    if not np.isfinite(adapted).all() or np.abs(adapted).max() > 4 or adapted[1].min() < -0.5:
        raise ValueError("there are no such colours")
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 15) + b"From PNG chunk\0".ljust(15 + 78, b"\0"),
        b"cprt": b"text\0\0\0\0No copyright\0",
        b"wtpt": _xyz_tag(np.array(_D50)),
    }
    for i, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"] = _xyz_tag(adapted[:, i])
        tags[name + b"TRC"] = _curve(gamma)
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">I4xI", at + len(body), 0x02400000) + b"mntrRGB XYZ "
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(v * 65536) for v in _D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(x: float, y: float) -> npt.NDArray[np.float64]:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _xyz_tag(xyz: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(v) * 65536) for v in xyz))


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH2x", 1, round(gamma * 256))
    x = np.linspace(0, 1, 1024)
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(">I", len(x)) + np.rint(light * 65535).astype(">u2").tobytes()
