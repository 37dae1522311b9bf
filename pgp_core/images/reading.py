"""Opening pictures: Pillow, and libvips for those with 16 bits, which Pillow cuts down to 8.

PNG, JPEG and TIFF are taken apart first. The libraries decode nothing but pixels, and damaged metadata never
costs the picture.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import PGPError, PictureError
from ..files.boundary import first_line, parsing
from . import beside, colour, deep, formats, jpeg, png, shallow, tiff
from .beside import RawMetadata
from .ifd import Structure
from .picture import Picture
from .turning import upright

_WHITE_POINT = 318


def open_picture(path: Path) -> Picture:
    """Read a picture and turn it upright after its EXIF, or its XMP where that has none.

    Grey stays grey, 16 bits stay 16. Palettes become RGB. CMYK and Lab become sRGB by their ICC profile. RGB and
    grey keep their values and their profile. Of several pictures in a file it is the first, or the main one.

    Raises:
        PictureError: if it is no picture that can be read, damaged, too large to be harmless, in floating
            point, or a camera's raw file; if its format needs a package that is not installed.
        PGPError: if it has 16 bits and libvips is not installed.
    """
    try:
        if not path.is_file():
            raise PictureError(f"there is no file {path}" if not path.exists() else f"{path} is no file")
        with path.open("rb") as file:
            kind = formats.kind_of(path, file.read(64))
            read = {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff}.get(kind.name)
            with parsing(path, PictureError), _better_names(path):
                file.seek(0)
                return read(path, file) if read else _other(path, file, kind)
    except OSError as e:
        raise PictureError(f"{path} cannot be read ({e.strerror or first_line(e)})") from None


@contextmanager
def _better_names(path: Path) -> Iterator[None]:
    """Errors of ours for what libraries raise where nothing is damaged."""
    try:
        yield
    except UnidentifiedImageError as e:
        raise PictureError(f"{path} cannot be read as a picture: it is none, or damaged") from e
    except Image.DecompressionBombError as e:
        raise PictureError(f"{path} is too large to be opened ({first_line(e)})") from e
    except MemoryError as e:
        raise PictureError(f"{path} takes more memory than there is") from e


def _png(path: Path, file: BinaryIO) -> Picture:
    parts = png.read(file.read())
    chunks, profiles, text = parts.chunks, parts.profiles, dict(parts.text)
    found = RawMetadata(
        exif=chunks.get(b"eXIf") or profiles.get("exif") or profiles.get("app1", b""),
        xmp=text.pop(png.XMP, "").encode("utf-8", "replace") or profiles.get("xmp", b""),
        icc=_unpacked(chunks.get(b"iCCP", b""), parts.notes),
        iptc=jpeg.iptc(profiles.get("iptc", b"")),
        text=text,
        dpi=png.resolution(chunks.get(b"pHYs", b"")),
        lost=parts.notes,
    )
    bits, kind = (parts.pixels[24], parts.pixels[25]) if len(parts.pixels) > 25 else (8, 0)
    if not found.icc:
        made, problem = colour.of_chunks(chunks)
        if kind in (0, 4) and (made or problem):
            found.chunks = {name: chunks[name] for name in (b"cICP", b"gAMA") if name in chunks}
        elif problem and b"cICP" in chunks:
            found.chunks = {b"cICP": chunks[b"cICP"]}
        elif problem:
            found.lost.append(problem)
        found.icc = made or b"" if kind not in (0, 4) else b""
    if bits == 16:
        pixels, extra = _deep(parts.pixels, path)
        return _picture(found, pixels, extra[0] if extra else None, found.icc, parts.frames)
    with shallow.opened(io.BytesIO(parts.pixels), ("PNG",)) as image:
        image.load()
        return _picture(found, *shallow.split(image, found.icc), parts.frames)


def _unpacked(body: bytes, lost: list[str]) -> bytes:
    """The profile in an iCCP chunk."""
    try:
        packed = body.partition(b"\0")[2][1:]
        return zlib.decompressobj().decompress(packed, 2**24) if packed else b""
    except zlib.error:
        lost.append("the ICC profile (damaged)")
        return b""


def _jpeg(path: Path, file: BinaryIO) -> Picture:
    parts = jpeg.read(file.read())
    found = parts.found
    with shallow.opened(io.BytesIO(parts.pixels), ("JPEG",)) as image:
        image.load()
        found.dpi = image.info.get("dpi")
        several = 1
        if parts.several:
            # Phones put a second picture behind, of depth or brightness.
            file.seek(0)
            several = _frames(file)
        return _picture(found, *shallow.split(image, found.icc), several, "main")


def _frames(file: BinaryIO) -> int:
    try:
        with shallow.opened(file, ("JPEG", "MPO")) as image:
            return shallow.frames(image)
    except Exception:
        # What is said of other pictures is damaged, not this one.
        return 1


def _tiff(path: Path, file: BinaryIO) -> Picture:
    structure = Structure(file)
    every = tiff.pages(structure)
    if tiff.is_raw(structure, every) or path.suffix.lower() in formats.RAW:
        raise formats.raw(path)
    page, count = tiff.main(every)
    if 3 in page.formats:
        raise PictureError(f"{path} is in floating point, {page.bits} bits a channel: convert it to 8 or 16 bits")
    if page.bits > 16:
        raise PictureError(f"{path} has {page.bits} bits a channel: convert it to 8 or 16 bits")
    if page.bits not in (1, 2, 4, 8, 16) or any(kind not in (1, 4) for kind in page.formats):
        signed = " with a sign" if any(kind not in (1, 4) for kind in page.formats) else ""
        raise PictureError(f"{path} has {page.bits} bits{signed} a channel: convert it to 8 or 16 bits")
    said = tiff.beside(structure, page)
    found = RawMetadata(said.exif or b"", said.xmp, b"", said.icc, said.iptc, dpi=said.dpi, lost=list(said.notes))
    found.orientation = page.orientation if 0x112 in page.directory.entries else None
    if any(kind == 0 for kind in page.extra):
        found.lost.append("a channel that is not said to be alpha")
    if page.bits == 16:
        return _deep_tiff(path, found, page, count)
    try:
        file.seek(0)
        with shallow.opened(file, ("TIFF",)) as image:
            image.seek(page.index)
            image.load()
            # Pillow turns most of them while it loads them, and says so by orientation 1.
            turned: Any = ImageOps.exif_transpose(image)
            found.turned = True
            # Lab of ImageMagick is relative to D65, and its files say so here.
            white = image.tag_v2.get(_WHITE_POINT) if image.mode == "LAB" else None
            if white is not None and not colour.is_white(white):
                found.lost.append("the white point (there is no such white: D50's is taken)")
                white = None
            return _picture(found, *shallow.split(turned, found.icc, white), count)
    except (PGPError, Image.DecompressionBombError, MemoryError):
        raise
    except Exception as e:
        # There are kinds that Pillow does not know and libvips does.
        found.turned = False
        try:
            return _deep_tiff(path, found, page, count)
        except Exception:
            raise e from None


def _deep_tiff(path: Path, found: RawMetadata, page: tiff.Page, count: int) -> Picture:
    pixels, extra = _deep(path, path, page.index, page.colours if page.photometric in (0, 1, 2, 5) else 0)
    for kind, channel in zip(page.extra, extra, strict=False):
        if kind == 0:
            continue
        if kind == 1 and not deep.divides():
            pixels = _divided(pixels, channel)
        return _picture(found, pixels, channel, None if page.photometric == 5 else found.icc, count)
    return _picture(found, pixels, None, None if page.photometric == 5 else found.icc, count)


def _divided(pixels: Any, alpha: Any) -> Any:
    """Colours that were multiplied by alpha."""
    white = int(np.iinfo(pixels.dtype).max)
    by = np.maximum(alpha, 1).astype(np.uint64)[..., None]
    return np.minimum((pixels.astype(np.uint64) * white + by // 2) // by, white).astype(pixels.dtype)


def _deep(source: Path | bytes, path: Path, page: int = 0, colours: int = 0) -> Any:
    try:
        return deep.read(source, path, page, colours)
    except (PGPError, MemoryError):
        raise
    except Exception as e:
        raise PictureError(f"{path} is damaged ({deep.line(e)})") from e


def _other(path: Path, file: BinaryIO, kind: formats.Kind) -> Picture:
    with shallow.opened(file, kind.formats) as image:
        # Photoshop's layers are no pictures; what they make together is opened.
        count, info = 1 if image.format == "PSD" else shallow.frames(image), image.info
        image.load()
        packet = info.get("xmp") or b""
        found = RawMetadata(
            exif=_bytes(info.get("exif")),
            xmp=packet.encode("utf-8", "replace") if isinstance(packet, str) else _bytes(packet),
            icc=_bytes(info.get("icc_profile")),
            comment=_bytes(info.get("comment")),
            dpi=info.get("dpi"),
            # libjxl turns pictures itself, whatever EXIF goes on saying.
            turned=image.format == "JXL",
        )
        if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
            raise PictureError(f"{path} has 32 bits a channel: convert it to 8 or 16 bits")
        if image.mode == "I" or image.mode.startswith("I;16"):
            levels = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
            return _picture(found, levels[..., None], None, found.icc, count)
        if _cut_down(image, file):
            found.lost.append("what it has beyond 8 bits a channel (as PNG or TIFF of 16 bits it would be kept)")
        return _picture(found, *shallow.split(image, found.icc), count)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _cut_down(image: Any, file: BinaryIO) -> bool:
    """Whether the file has more than the 8 bits that Pillow gives."""
    file.seek(0)
    head = file.read(4096)
    if image.format == "SGI":
        return head[3:4] == b"\2"
    if image.format == "PPM":
        words = b"\n".join(line.split(b"#")[0] for line in head.splitlines()[:20]).split()
        return len(words) > 3 and words[0] in (b"P3", b"P6") and words[3].isdigit() and int(words[3][:9]) > 255
    if image.format == "JPEG2000":
        at = head.find(b"\xff\x4f\xff\x51")
        return at >= 0 and len(head) > at + 42 and (head[at + 42] & 0x7F) + 1 > 8
    if image.format in ("AVIF", "HEIF"):
        # Boxes that say the bits of each channel, behind version and count.
        return any(found[1][0] > 8 for found in re.finditer(rb"pixi\0...[\1-\4](.)", head, re.S))
    return False


def _picture(
    found: RawMetadata, pixels: Any, alpha: Any, icc: bytes | None, frames: int = 1, which: str = "first"
) -> Picture:
    metadata, orientation = beside.settled(found)
    metadata = beside.with_profile(metadata, found.icc, icc, pixels.shape[-1] == 1, found.lost)
    notes = []
    if frames > 1:
        notes.append(f"it holds {frames} pictures: the {which} one is taken")
    if found.lost:
        notes.append(f"left out: {'; '.join(dict.fromkeys(found.lost))}")
    return Picture(
        upright(pixels, orientation),
        None if alpha is None else upright(alpha, orientation),
        metadata,
        frames,
        tuple(notes),
    )
