"""Good pictures of every mode, depth and number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from .deep import deep_png, deep_tiff
from .scene import Odd, grey_scene, scene, threefold


def make(folder: Path) -> Iterator[Odd]:
    picture, grey = scene(), grey_scene()
    image = Image.fromarray(picture)
    opaque = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    for name, deep in (("deep rgb", picture), ("deep alpha", opaque), ("deep grey", grey)):
        deep_png(folder / f"{name}.png", deep)
        deep_tiff(folder / f"{name}.tif", deep)
        shown = threefold(grey) if deep.ndim == 2 else picture
        yield Odd(f"{name}.png", shown, bits=16)
        yield Odd(f"{name}.tif", shown, result=f"{name}.tif", bits=16)
    deep_tiff(folder / "deep grey alpha.tif", np.dstack([grey, opaque[..., 3]]))
    yield Odd("deep grey alpha.tif", threefold(grey), bits=16)
    Image.fromarray(opaque).save(folder / "alpha.png")
    Image.fromarray(np.dstack([grey, opaque[..., 3]])).save(folder / "grey alpha.png")
    Image.fromarray(grey).save(folder / "grey.jpg", quality=95)
    yield Odd("alpha.png", picture)
    yield Odd("grey alpha.png", threefold(grey))
    yield Odd("grey.jpg", threefold(grey))
    yield from _palettes(folder, image)
    yield from _printed(folder, image)
    yield from _several(folder, image)
    yield from _containers(folder, image)
    for name, width, height in (("one pixel.png", 1, 1), ("thin.png", 1, 2000), ("flat.png", 2000, 1)):
        thin = scene(width, height)
        Image.fromarray(thin).save(folder / name)
        yield Odd(name, thin)


def _palettes(folder: Path, image: Image.Image) -> Iterator[Odd]:
    few = image.quantize(200, dither=Image.Dither.NONE)
    shown = np.asarray(few.convert("RGB"))
    few.save(folder / "palette.png")
    yield Odd("palette.png", shown)
    few.save(folder / "palette with transparency.png", transparency=bytes([255] * 256))
    yield Odd("palette with transparency.png", shown)
    black = np.zeros((12, 12), np.uint8)
    black[:, 6:] = 255
    Image.fromarray(black).convert("1").save(folder / "two colours.png")
    yield Odd("two colours.png", threefold(black))


def _printed(folder: Path, image: Image.Image) -> Iterator[Odd]:
    """Inks and Lab; what they show is what Pillow's own conversion says."""
    inks = image.convert("CMYK")
    inks.save(folder / "cmyk.tif")
    yield Odd("cmyk.tif", np.asarray(inks.convert("RGB")), result="cmyk.tif")
    inks.save(folder / "cmyk.jpg", quality=95)
    yield Odd("cmyk.jpg", np.asarray(inks.convert("RGB")), result="cmyk")
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(image, to_lab)
    assert lab is not None
    lab.save(folder / "lab.tif")
    yield Odd("lab.tif", np.asarray(image))


def _several(folder: Path, image: Image.Image) -> Iterator[Odd]:
    """The first frame is what is shown."""
    shown = np.asarray(image)
    others = [image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), image.point(lambda v: 255 - v)]
    image.save(folder / "animated.png", save_all=True, append_images=others, duration=50)
    image.save(folder / "animated.webp", save_all=True, append_images=others, duration=50, lossless=True)
    few = image.quantize(200, dither=Image.Dither.NONE)
    few.save(folder / "animated.gif", save_all=True, append_images=[o.quantize(200) for o in others], duration=50)
    yield Odd("animated.png", shown)
    yield Odd("animated.webp", shown, result="animated.webp")
    yield Odd("animated.gif", np.asarray(few.convert("RGB")), result="animated.gif")


def _containers(folder: Path, image: Image.Image) -> Iterator[Odd]:
    shown = np.asarray(image)
    image.save(folder / "plain.bmp")
    image.save(folder / "plain.ppm")
    yield Odd("plain.bmp", shown, result="plain")
    yield Odd("plain.ppm", shown, result="plain.ppm")
    image.save(folder / "progressive.jpg", quality=95, subsampling=0, progressive=True)
    yield Odd("progressive.jpg", shown)
    image.save(folder / "a png.jpg", "PNG")
    image.save(folder / "a jpeg.png", "JPEG", quality=95, subsampling=0)
    yield Odd("a png.jpg", shown)
    yield Odd("a jpeg.png", shown)
    image.save(folder / "ENDING.JPG", quality=95, subsampling=0)
    yield Odd("ENDING.JPG", shown)
    image.save(folder / "more behind.jpg", quality=95, subsampling=0)
    with (folder / "more behind.jpg").open("ab") as file:
        file.write(b"\0" * 5000)
    yield Odd("more behind.jpg", shown)
    image.save(folder / "deflated.tif", compression="tiff_adobe_deflate")
    yield Odd("deflated.tif", shown)
