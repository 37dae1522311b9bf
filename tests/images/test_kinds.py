"""Pictures through real files: what goes in is what comes out, as Pillow and the formats' own bytes tell."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.color
import tifffile
import torch
from found_pictures import deep_file, levels, same
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from pgp_core.errors import PGPError, PictureError
from pgp_core.images.picture import Picture
from pgp_core.images.reading import open_picture
from pgp_core.images.writing import FORMATS, save_picture

pyvips = pytest.importorskip("pyvips", reason='pictures of 16 bits need pyvips: pip install "pgp-diffsr[cli]"')

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def assert_seen_the_same(result: np.ndarray, original: np.ndarray, alpha: bool, tolerance: int = 0) -> None:
    """All of what is opaque; of what is not, what is seen of it, to a level: half of it, and rounding."""
    off = np.abs(result.astype(float) - original)
    if not alpha:
        assert off.max() <= tolerance
        return
    white = np.iinfo(original.dtype).max
    assert off[..., -1].max() == 0
    assert (off[..., :-1] * (original[..., -1:] / white)).max() <= 1 + tolerance
    assert (off[original[..., -1] == white] <= tolerance).all()


# -- modes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "grey", "alpha"),
    [
        ("1", True, False),
        ("L", True, False),
        ("LA", True, True),
        ("P", False, False),
        ("RGB", False, False),
        ("RGBA", False, True),
    ],
)
def test_modes(mode: str, grey: bool, alpha: bool, tmp_path: Path) -> None:
    image = Image.fromarray(levels(9, 7, 4)).convert("RGB" if mode == "P" else "RGBA").convert(mode)
    image.save(tmp_path / "a.png")
    picture = open_picture(tmp_path / "a.png")
    assert picture.pixels.shape == (9, 7, 1 if grey else 3)
    assert (picture.alpha is not None) == alpha
    assert picture.rgb().shape == (1, 3, 9, 7)
    expected = image.convert("L" if grey else "RGB") if not alpha else image
    if alpha:
        assert np.array_equal(picture.alpha, np.asarray(image.getchannel("A")))
        expected = Image.merge("L" if grey else "RGB", image.split()[:-1])
    assert np.array_equal(picture.pixels.squeeze(), np.asarray(expected))
    save_picture(same(picture), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as result:
        assert result.mode == ("L" if grey else "RGB") + "A" * alpha
        assert_seen_the_same(np.asarray(result), np.asarray(image.convert(result.mode)), alpha)


def test_a_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(levels(8, 8, 3)).quantize(16)
    image.save(tmp_path / "a.png", transparency=3)
    picture = open_picture(tmp_path / "a.png")
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha == 0, np.asarray(image) == 3)


def test_cmyk_becomes_srgb(tmp_path: Path) -> None:
    Image.fromarray(levels(8, 8, 4), "CMYK").save(tmp_path / "a.tif")
    picture = open_picture(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image:
        assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.metadata.icc is None


def test_lab_becomes_srgb(tmp_path: Path) -> None:
    srgb = Image.new("RGB", (4, 4), (200, 90, 40))
    lab = ImageCms.profileToProfile(
        srgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "a.tif")
    picture = open_picture(tmp_path / "a.tif")
    assert np.abs(picture.pixels.astype(int) - (200, 90, 40)).max() <= 3


@pytest.mark.parametrize(("white", "illuminant"), [((0.3127, 0.3290), "D65"), ((0.3457, 0.3585), "D50")])
def test_lab_is_relative_to_the_white_that_its_file_says(
    white: tuple[float, float], illuminant: str, tmp_path: Path
) -> None:
    """Against scikit-image's formulas, from the very numbers that are in the file."""
    colours = np.random.default_rng(0).integers(0, 256, (300, 8, 3)) / 255
    lab = skimage.color.rgb2lab(colours, illuminant="D65")
    levels = np.stack([lab[..., 0] * 2.55, lab[..., 1], lab[..., 2]], -1).round()
    stored = np.stack(
        [levels[..., 0].astype(np.uint8), *(levels[..., i].astype(np.int8).view(np.uint8) for i in (1, 2))], -1
    )
    numbers = [n for v in white for n in (round(v * 10**6), 10**6)]
    tag = (318, 5, 2, numbers, True)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="cielab", extratags=[tag])
    exact = np.stack([levels[..., 0] / 2.55, levels[..., 1], levels[..., 2]], -1)
    xyz = skimage.color.lab2xyz(exact, illuminant=illuminant)
    if illuminant == "D50":
        # Bradford's matrix from D50 to D65, as the ICC and Lindbloom print it.
        bradford = np.array(
            [[0.9555766, -0.0230393, 0.0631636], [-0.0282895, 1.0099416, 0.0210077], [0.0122982, -0.0204830, 1.3299098]]
        )
        xyz = xyz @ bradford.T
    expected = np.clip(skimage.color.xyz2rgb(xyz), 0, 1) * 255
    found = open_picture(tmp_path / "a.tif").pixels
    # Matrices of four digits, on the steep part of sRGB's curve.
    assert np.abs(found - expected).max() <= 1.5
    if illuminant == "D65":
        assert np.abs(found - colours * 255).mean() < 2, "rounded to whole a and b"


@pytest.mark.parametrize("white", [(0, 1, 0, 0), (3, 1, 9, 1), (1, 0, 1, 0)], ids=str)
def test_a_white_that_is_none_is_said(white: tuple[int, ...], tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 120, (8, 8, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="cielab", extratags=[(318, 5, 2, list(white), True)])
    tifffile.imwrite(tmp_path / "plain.tif", stored, photometric="cielab")
    picture, plain = open_picture(tmp_path / "a.tif"), open_picture(tmp_path / "plain.tif")
    assert len(picture.notes) == 1 and "white point" in picture.notes[0] and not plain.notes
    assert np.array_equal(picture.pixels, plain.pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_a_profile_of_other_channels_is_said(suffix: str, tmp_path: Path) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(levels(16, 16, 4), "CMYK").save(tmp_path / f"a{suffix}", icc_profile=icc)
    (note,) = open_picture(tmp_path / f"a{suffix}").notes
    assert "ICC profile" in note and "RGB" in note


# -- 16 bits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_sixteen_bits_stay_sixteen(bands: int, suffix: str, tmp_path: Path) -> None:
    array = deep_file(tmp_path / f"a{suffix}", bands)
    picture = open_picture(tmp_path / f"a{suffix}")
    colours = 3 if bands > 2 else 1
    assert picture.pixels.dtype == np.uint16
    assert np.array_equal(picture.pixels, array[..., :colours])
    if bands in (2, 4):
        assert np.array_equal(picture.alpha, array[..., -1])
    save_picture(same(picture), tmp_path / f"b{suffix}")
    again = open_picture(tmp_path / f"b{suffix}")
    # Grey goes through three equal channels and their luma.
    written = again.pixels if again.alpha is None else np.concatenate([again.pixels, again.alpha[..., None]], -1)
    assert_seen_the_same(written, array, bands in (2, 4), 1)
    data = (tmp_path / f"b{suffix}").read_bytes()
    if suffix == ".png":
        assert data[24] == 16, "bit depth in the file's header"
        assert data[25] == {1: 0, 2: 4, 3: 2, 4: 6}[bands], "colour type"
    elif bands == 2:
        # Pillow does not know this kind.
        assert pyvips.Image.new_from_file(str(tmp_path / "b.tif")).format == "ushort"
    else:
        with Image.open(tmp_path / "b.tif") as image:
            assert set(image.tag_v2[258]) == {16}


def test_sixteen_bits_by_pillow_s_own_reading(tmp_path: Path) -> None:
    array = deep_file(tmp_path / "a.png", 1)
    save_picture(same(open_picture(tmp_path / "a.png")), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode.startswith("I")
        assert np.abs(np.asarray(image).astype(int) - array[..., 0]).max() <= 1


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_sixteen_bits_in_a_format_of_eight(suffix: str, tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), (65535, 257 * 100 + 20, 100), np.uint16)
    save_picture(Picture(pixels), tmp_path / f"a{suffix}", quality=100, lossless=True)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert np.abs(np.asarray(image).astype(int) - (255, 100, 0)).max() <= 2


def test_floating_point_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(PictureError, match="32 bits a channel: convert it"):
        open_picture(tmp_path / "a.tif")


def test_without_libvips_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep_file(tmp_path / "a.png", 3)
    monkeypatch.setitem(__import__("sys").modules, "pyvips", None)
    with pytest.raises(PGPError, match=r'pip install "pgp-diffsr\[cli\]"'):
        open_picture(tmp_path / "a.png")


# -- metadata ------------------------------------------------------------------------------------------------


def rich(path: Path) -> None:
    info = PngInfo()
    info.add_text("workflow", '{"nodes": []}')
    info.add_itxt("Author", "Zoë")
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>x</x:xmpmeta>")
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    Image.fromarray(levels(8, 8, 3)).save(path, pnginfo=info, exif=exif, icc_profile=SRGB, dpi=(300, 300))


@pytest.mark.parametrize("suffix", sorted(FORMATS.values()))
def test_metadata_is_kept_where_the_format_can(suffix: str, tmp_path: Path) -> None:
    rich(tmp_path / "a.png")
    save_picture(same(open_picture(tmp_path / "a.png")), tmp_path / f"b{suffix}")
    with Image.open(tmp_path / f"b{suffix}") as result:
        assert result.info["icc_profile"] == SRGB
        assert result.getexif()[0x010F] == "Camera"
        if suffix != ".webp":
            assert result.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        if suffix == ".png":
            assert result.text["workflow"] == '{"nodes": []}'
            assert result.text["Author"] == "Zoë"
        if suffix != ".tif":
            assert b"xmpmeta" in (tmp_path / f"b{suffix}").read_bytes()


def test_the_profile_of_sixteen_bits_is_kept(tmp_path: Path) -> None:
    deep_file(tmp_path / "a.png", 3)
    picture = open_picture(tmp_path / "a.png")
    picture = Picture(picture.pixels, None, type(picture.metadata)(icc=SRGB, text={"workflow": "{}"}, dpi=(300, 300)))
    for suffix in (".png", ".tif"):
        save_picture(picture, tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as result:
            assert result.info["icc_profile"] == SRGB
            assert result.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        again = open_picture(tmp_path / f"b{suffix}").metadata
        assert again.icc == SRGB
        assert suffix == ".tif" or again.text == {"workflow": "{}"}


def test_a_profile_of_other_channels_is_left_out(tmp_path: Path) -> None:
    Image.fromarray(levels(8, 8)).save(tmp_path / "a.png", icc_profile=SRGB)
    assert open_picture(tmp_path / "a.png").metadata.icc is None


# -- alpha ---------------------------------------------------------------------------------------------------


def test_alpha_is_enlarged_with_the_picture() -> None:
    ramp = np.linspace(0, 255, 16).round().astype(np.uint8)
    picture = Picture(np.full((16, 16, 3), 100, np.uint8), np.tile(ramp, (16, 1)))
    large = picture.enlarged(torch.full((3, 64, 64), 0.5))
    assert large.alpha is not None and large.alpha.shape == (64, 64)
    expected = np.interp((np.arange(64) + 0.5) / 4 - 0.5, np.arange(16), ramp.astype(float))
    assert np.abs(large.alpha[30].astype(int) - expected)[8:-8].max() <= 2


def test_jpeg_is_put_on_white(tmp_path: Path) -> None:
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, 8:] = 255
    for colours in (1, 3):
        (note,) = save_picture(Picture(np.zeros((16, 16, colours), np.uint8), alpha), tmp_path / "a.jpg")
        assert note == "left out: transparency (jpeg has none: the picture lies on white)"
        opaque = Picture(np.zeros((16, 16, colours), np.uint8), np.full_like(alpha, 255))
        assert save_picture(opaque, tmp_path / "b.jpg") == []
        with Image.open(tmp_path / "a.jpg") as image:
            assert image.mode == ("RGB" if colours == 3 else "L")
            row = np.asarray(image.convert("L"))[8]
        assert row[:6].min() > 250 and row[10:].max() < 5


# -- formats -------------------------------------------------------------------------------------------------


def test_quality(tmp_path: Path) -> None:
    picture = Picture(levels(64, 64, 3))
    for suffix in (".jpg", ".webp"):
        sizes = []
        for quality in (30, 95):
            save_picture(picture, tmp_path / f"a{suffix}", quality)
            sizes.append((tmp_path / f"a{suffix}").stat().st_size)
        assert sizes[0] < 0.6 * sizes[1]
    save_picture(picture, tmp_path / "b.webp", lossless=True)
    with Image.open(tmp_path / "b.webp") as image:
        assert np.array_equal(np.asarray(image), picture.pixels)


def test_webp_without_loss_keeps_what_nobody_sees(tmp_path: Path) -> None:
    array = levels(16, 16, 4)
    array[:8, :, 3] = 0
    save_picture(Picture(array[..., :3], array[..., 3]), tmp_path / "a.webp", lossless=True)
    with Image.open(tmp_path / "a.webp") as image:
        assert np.array_equal(np.asarray(image), array)


def test_formats_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PGPError, match=r"written as png, tiff, jpeg, webp, not '\.gif'"):
        save_picture(Picture(levels(2, 2, 3)), tmp_path / "a.gif")
    with pytest.raises(PictureError, match="webp holds 16383 pixels a side"):
        save_picture(Picture(np.zeros((1, 16384, 3), np.uint8)), tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("deep", [False, True])
def test_a_full_disk_leaves_nothing(deep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgp_core.images import writing

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.deep, "write", full)
    monkeypatch.setattr(Image.Image, "save", full)
    (tmp_path / "a.png").write_bytes(b"before")
    with pytest.raises(PictureError, match="No space left"):
        save_picture(Picture(levels(4, 4, 3, high=65536 if deep else 256)), tmp_path / "a.png")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"before"]


# -- files that are none ---------------------------------------------------------------------------------------


def bomb(path: Path) -> None:
    """A PNG that says it is 60000 x 60000."""
    Image.new("L", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def truncated(path: Path) -> None:
    Image.fromarray(levels(64, 64, 3)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:1500])


def deep_truncated(path: Path) -> None:
    deep_file(path, 3)
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("empty.png", lambda p: p.write_bytes(b"")),
        ("text.png", lambda p: p.write_text("hello")),
        ("truncated.jpg", truncated),
        ("deep.png", deep_truncated),
        ("bomb.png", bomb),
    ],
)
def test_files_that_are_no_pictures(name: str, make: Any, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(PictureError, match=name) as error:
        open_picture(tmp_path / name)
    assert "\n" not in str(error.value)
