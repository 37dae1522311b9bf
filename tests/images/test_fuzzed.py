"""Metadata of any bytes: a picture, or a line that says what is wrong; and what is written can be read by others."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from found_pictures import camera_exif, camera_file, deep_file, levels, packet, with_chunks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pgp_core.errors import PGPError
from pgp_core.images.reading import open_picture
from pgp_core.images.writing import FORMATS, save_picture

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("pyvips")

#: More of them where somebody has the time: PGP_FUZZ_EXAMPLES=20000.
EXAMPLES = int(os.environ.get("PGP_FUZZ_EXAMPLES", "60"))
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.sampled_from((0, 1, 2, 127, 255)) | st.integers(0, 255)), max_size=12)


def _sources(folder: Path) -> dict[str, bytes]:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name in ("a.jpg", "a.webp"):
        camera_file(folder / name, camera_exif(">", thumbnail=b"small"), packet(), icc_profile=icc)
    camera_file(folder / "a.png", camera_exif(), packet())
    with_chunks(folder / "a.png", (b"gAMA", struct.pack(">I", 60000)), (b"pHYs", struct.pack(">IIB", 3000, 3000, 1)))
    deep_file(folder / "deep.png", 4)
    with_chunks(folder / "deep.png", (b"eXIf", camera_exif()), (b"zTXt", b"a\0\0" + zlib.compress(b"text")))
    tags = [(271, 2, 0, "Maker", True), (700, 1, len(packet()), packet(), True), (34675, 7, len(icc), icc, True)]
    for name, high in (("a.tif", 256), ("deep.tif", 65536)):
        tifffile.imwrite(folder / name, levels(12, 10, 3, high=high), photometric="rgb", extratags=tags)
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.stem != "plain"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return _sources(tmp_path_factory.mktemp("sources"))


def _spoilt(data: bytes, changes: list[tuple[float, int]], among: int, from_behind: bool, length: float) -> bytes:
    spoilt = bytearray(data)
    for place, value in changes:
        at = int(place * (min(among, len(spoilt)) - 1))
        spoilt[-1 - at if from_behind else at] = value
    return bytes(spoilt[: max(64, int(length * len(spoilt)))])


def _with_sums(data: bytes) -> bytes:
    """A PNG's check sums made right again, so that what was spoilt is looked at."""
    at, out = 8, data[:8]
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + size > len(data):
            break
        body = data[at + 4 : at + 8 + size]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return out + data[at:]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES <= 60)
@given(
    st.sampled_from(("a.jpg", "a.webp", "a.png", "deep.png", "a.tif", "deep.tif")),
    CHANGES,
    st.sampled_from((60, 300, 900, 1 << 30)),
    st.booleans(),
    st.just(1.0) | st.floats(0.1, 1),
    st.sampled_from(sorted(FORMATS.values())),
)
def test_a_picture_or_a_line(
    sources: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    changes: list[tuple[float, int]],
    among: int,
    from_behind: bool,
    length: float,
    suffix: str,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    spoilt = _spoilt(sources[name], changes, among, from_behind, length)
    path, target = folder / f"spoilt-{name}", folder / f"result{suffix}"
    path.write_bytes(_with_sums(spoilt) if name.endswith(".png") else spoilt)
    try:
        picture = open_picture(path)
    except PGPError as e:
        assert "\n" not in str(e)
        return
    assert all("\n" not in note for note in picture.notes)
    if picture.pixels.size > 2**22 or max(picture.pixels.shape) > 16383:
        return
    for note in save_picture(picture, target):
        assert note.isprintable()
    with Image.open(target) as result:
        result.load()
        assert result.size == picture.pixels.shape[1::-1]
        assert result.getexif().get(0x0112, 1) == 1
    again = open_picture(target)
    assert again.notes == () and (suffix in (".jpg", ".webp") or np.array_equal(again.pixels, picture.pixels))
