"""The photographs that judge, which nothing here ever trains on: those inside scikit-image's wheel.

The wheel has files in ``skimage/data``; whatever else ``skimage.data`` offers would be downloaded and is left
alone. Taken are the colour photographs: astronaut, chelsea, coffee, hubble_deep_field, motorcycle_left, rocket.
Left out are

* brick, camera, cell, clock_motion, coins, grass, gravel, horse, lfw_subset, microaneurysms, moon, page, phantom,
  text: grey;
* chessboard_*, color, logo, multipage*, no_time_for_that_tiny: drawings, test patterns, or smaller than a crop;
* ihc (a stained section under the microscope) and retina (the inside of an eye; its middle is an even red
  area, which any method gets right): medical pictures, not what one photographs;
* motorcycle_right: the same scene as motorcycle_left, which would count twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from PIL import Image

from ..errors import PGPError
from .extras import extra

FILES = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "rocket.jpg",
)

SIZE = 256


def photographs(size: int = SIZE) -> dict[str, Image.Image]:
    """The middle ``size`` x ``size`` pixels of each, as RGB, by name.

    Raises:
        PGPError: if scikit-image is missing, or was installed without its pictures.
    """
    return {name: _middle(image, size, size) for name, image in _opened()}


def whole_photographs(longest: int, names: Collection[str] | None = None) -> dict[str, Image.Image]:
    """The middle of each, as much as has sides of multiples of 16 of at most ``longest`` pixels.

    Args:
        names: all by default.

    Raises:
        PGPError: see :func:`photographs`.
    """
    sizes = ((name, image, [min(n, longest) // 16 * 16 for n in image.size]) for name, image in _opened())
    return {name: _middle(image, *size) for name, image, size in sizes if names is None or name in names}


def _opened() -> Iterator[tuple[str, Image.Image]]:
    folder = Path(str(extra("skimage").__file__)).parent / "data"
    for file in FILES:
        path = folder / file
        if not path.is_file():
            raise PGPError(f'this scikit-image has no {path}; its wheel does: pip install "pgp-diffsr[eval]"')
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            yield path.stem, image.convert("RGB")


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
