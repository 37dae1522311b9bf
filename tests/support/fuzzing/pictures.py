"""Pictures: their bytes, and the metadata in them."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from pgp_core.images.reading import open_picture
from pgp_core.images.writing import save_picture

from . import hostile
from .prepared import Prepared, encoded

_ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "GIF": ".gif", "BMP": ".bmp"}
_MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"), "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "LAB", "F"), "GIF": ("P", "L"), "BMP": ("RGB", "L"),
}  # fmt: skip
_MAGIC = {".png": b"\x89PNG", ".tif": (b"II", b"MM"), ".jpg": b"\xff\xd8\xff", ".webp": b"RIFF"}


def _image(rng: random.Random, kind: str) -> Image.Image:
    mode = rng.choice(_MODES[kind])
    width, height = rng.randint(1, 9), rng.randint(1, 9)
    if mode == "I;16":
        return Image.fromarray(np.arange(width * height, dtype=np.uint16).reshape(height, width) * 500)
    if mode in ("LAB", "F"):
        return Image.new(mode, (width, height), 3)
    noise = np.arange(width * height * 3, dtype=np.uint32).reshape(height, width, 3) * 37 % 256
    return Image.fromarray(noise.astype(np.uint8)).convert(mode)


def _through(rng: random.Random, path: Path, folder: Path) -> None:
    """Read, twice as large, written in some format, read again: the metadata may be left out, the picture not."""
    # What claims to be huge is refused at a size that does not keep the kit waiting.
    with mock.patch.object(Image, "MAX_IMAGE_PIXELS", 50_000):
        picture = open_picture(path)
    rgb = torch.nn.functional.interpolate(picture.rgb(), scale_factor=2)
    result = folder / f"result{rng.choice(('.png', '.tif', '.jpg', '.webp'))}"
    save_picture(picture.enlarged(rgb[0]), result, rng.choice((1, 95, 100)), rng.random() < 0.2)
    assert result.read_bytes().startswith(_MAGIC[result.suffix]), "it is of another format than its name says"
    again = open_picture(result)
    assert again.pixels.shape[:2] == tuple(rgb.shape[-2:])


def picture(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """Damaged anywhere."""
    kind = rng.choice(list(_ENDINGS))
    data = encoded(_image(rng, kind), kind)
    head = range(len(data)) if rng.randrange(3) == 0 else range(min(len(data), 120))
    ending = _ENDINGS[kind] if rng.randrange(6) else rng.choice(list(_ENDINGS.values()))
    path = folder / f"picture{ending}"
    path.write_bytes(hostile.spoilt(rng, data, head))
    _through(rng, path, folder)


def metadata(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A sound picture with metadata that is not."""
    kind = rng.choice(("PNG", "JPEG", "WEBP", "TIFF"))
    image = _image(rng, kind)
    while image.mode in ("F", "LAB"):
        image = _image(rng, kind)
    path = folder / f"picture{_ENDINGS[kind]}"
    path.write_bytes({"PNG": _png, "TIFF": _tiff}.get(kind, _other)(rng, image, kind, prepared))
    _through(rng, path, folder)


def _other(rng: random.Random, image: Image.Image, kind: str, prepared: Prepared) -> bytes:
    options: dict[str, Any] = {}
    if rng.randrange(4):
        options["exif"] = _exif(rng)[:60_000]
    if rng.randrange(2):
        options["xmp"] = _xmp(rng)[:60_000]
    if rng.randrange(2):
        options["icc_profile"] = _profile(rng, prepared)
    if kind == "JPEG" and rng.randrange(2):
        options["dpi"] = rng.choice(((0, 0), (1, 65535), (72, 300)))
    data = encoded(image, kind, **options)
    if kind == "JPEG" and rng.randrange(3) == 0:
        # Segments of other programs: Photoshop's, a comment, a second Exif, one that ends too early.
        body = rng.choice((b"Photoshop 3.0\x008BIM\x03\xed" + bytes(9), b"Exif\0\0" + _exif(rng)[:2000], b"http://ns.adobe",
                           b"ICC_PROFILE\0\x02\x01" + bytes(60), b"MPF\0II*\0" + bytes(20)))  # fmt: skip
        marker = rng.choice((b"\xff\xe1", b"\xff\xe2", b"\xff\xed", b"\xff\xfe"))
        length = len(body) + 2 + rng.choice((0, 0, 0, 5, -1))
        data = data[:2] + marker + struct.pack(">H", length) + body + data[2:]
    return data


def _png(rng: random.Random, image: Image.Image, kind: str, prepared: Prepared) -> bytes:
    info = PngInfo()
    texts = [t.encode("utf-8", "replace").decode() for t in hostile.TEXTS]
    if rng.randrange(2):
        info.add_text(rng.choice(("Comment", "workflow", "x")), rng.choice(texts)[:5000].replace("\0", "") or "x")
    if rng.randrange(2):
        info.add_itxt(rng.choice(("XML:com.adobe.xmp", "Title")), rng.choice((*texts, _xmp(rng).decode("latin-1"))))
    data = encoded(image, "PNG", pnginfo=info)
    chunks = []
    if rng.randrange(3):
        chunks.append((b"eXIf", _exif(rng)))
    if rng.randrange(2):
        body = rng.choice((b"name\0\0" + zlib.compress(_profile(rng, prepared)), b"name\0\x01x", b"", b"n" * 100))
        chunks.append((b"iCCP", body))
    if rng.randrange(2):
        chunks.append(
            (b"pHYs", struct.pack(">IIB", *rng.choice(((0, 0, 1), (2**32 - 1, 1, 1), (2835, 2835, 0), (1, 2, 9)))))
        )
    if rng.randrange(3) == 0:
        odd = (
            b"\xff\xfe\0\xff",
            b"key",
            b"key\0text\xff",
            b"key\0" + b"x" * 70_000,
            b"\0",
            b"k\0\x01\0\0\0" + bytes(9),
        )
        chunks.append((rng.choice((b"tEXt", b"zTXt", b"iTXt", b"tIME", b"tRNS", b"gAMA", b"cHRM")), rng.choice(odd)))
    for name, body in chunks:
        crc = zlib.crc32(name + body) ^ (rng.randrange(8) == 0)
        data = data[:33] + struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc) + data[33:]
    return data


def _tiff(rng: random.Random, image: Image.Image, kind: str, prepared: Prepared) -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    text = rng.choice(hostile.TEXTS).encode("ascii", "replace").decode()
    given = {270: text, 274: rng.choice((0, 3, 9)), 700: _xmp(rng), 34675: _profile(rng, prepared), 33432: "©"}
    for tag, value in {**given, 282: 0.0, 65000: b"own"}.items():
        if rng.randrange(2):
            tags[tag] = value
    buffer = io.BytesIO()
    try:
        image.save(buffer, "TIFF", tiffinfo=tags)
    # What Pillow cannot write it need not read.
    except Exception:
        buffer = io.BytesIO(encoded(image, "TIFF"))
    data = buffer.getvalue()
    start = int.from_bytes(data[4:8], "little")
    return hostile.spoilt(rng, data, range(start, len(data))) if rng.randrange(3) == 0 else data


_TAGS = (0x0112, 0x011A, 0x011B, 0x0128, 0x0131, 0x8769, 0x8825, 0xA005, 0x927C, 0x9286, 0xA002, 0xA003, 0x0201, 0x0202,
         0x9003, 0x829A, 0x0103, 0x010F, 0x0002, 0x0001, 0xEA1C, 0x02BC)  # fmt: skip


def _exif(rng: random.Random) -> bytes:
    """A TIFF structure: directories whose entries are as cameras write them, or of odd types, lengths and places."""
    little = rng.randrange(2) == 0
    order = "<" if little else ">"
    head = (b"II*\0" if little else b"MM\0*") + struct.pack(order + "I", 8)
    directories = rng.randint(1, 3)
    body, starts = b"", []
    for _ in range(directories):
        starts.append(8 + len(body))
        entries = b""
        count = rng.randint(0, 8)
        for _ in range(count):
            kind = rng.choice((1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 0, 99))
            length = rng.choice((0, 1, 1, 1, 2, 3, 4, 100, 70_000, 2**31, 2**32 - 1))
            pointers = (*starts, 8, 0, 2**32 - 1, 60, rng.randrange(2**32))
            entries += struct.pack(order + "HHII", rng.choice(_TAGS), kind, length, rng.choice(pointers))
        declared = count if rng.randrange(4) else rng.choice((0, count + 1, 65535))
        following = rng.choice((0, 0, 8, starts[-1], 2**32 - 1))
        body += struct.pack(order + "H", declared) + entries + struct.pack(order + "I", following)
    data = head + body + bytes(rng.choice((0, 8, 200, 70_000)))
    how = rng.randrange(6)
    if how == 0:
        data = hostile.spoilt(rng, data)
    elif how == 1:
        data = data[: rng.randrange(len(data) + 1)]
    elif how == 2:
        data = rng.choice((b"", b"Exif\0\0", b"II", b"no tiff at all", bytes(40)))
    return rng.choice((b"Exif\0\0", b"")) + data


def _xmp(rng: random.Random) -> bytes:
    base = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
    odd = (
        base,
        b"",
        b"\xff\xfe\0",
        base[:30],
        base + b"x" * 70_000,
        b"<" * 5000,
        b"<!DOCTYPE x [<!ENTITY a 'b'>]>&a;",
        b"\0",
    )
    return rng.choice((*odd, hostile.spoilt(rng, base)))


def _profile(rng: random.Random, prepared: Prepared) -> bytes:
    good = prepared.profile
    return rng.choice((good, hostile.spoilt(rng, good, range(160)), good[:100], b"x", good + bytes(100_000)))
