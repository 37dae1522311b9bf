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
    folder = Path(str(extra("skimage").__file__)).parent / "data"
    pictures = {}
    for file in FILES:
        path = folder / file
        if not path.is_file():
            raise PGPError(f'this scikit-image has no {path}; its wheel does: pip install "pgp-diffsr[eval]"')
        with Image.open(path) as image:
            pictures[path.stem] = _middle(image.convert("RGB"), size)
    return pictures


def _middle(image: Image.Image, size: int) -> Image.Image:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
