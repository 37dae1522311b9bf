"""Conditionings for areas of a guided picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy.model_patcher
import torch
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.pgp_core.guidance import whole_phase

import nodes

from .. import scene
from .averages import Averages, seen

#: Pixels of core's own reckoning, 8 to a latent position.
PIXELS = 8


def _area(positive: Any, height: int, width: int, y: int, x: int) -> Any:
    return nodes.ConditioningSetArea().append(positive, *(n * PIXELS for n in (width, height, x, y)), 1.0)[0]


def _mask(positive: Any, height: int, width: int, y: int, x: int, of: tuple[int, int]) -> Any:
    mask = torch.zeros(1, *of)
    mask[:, y : y + height, x : x + width] = 1
    return nodes.ConditioningSetMask().append(positive, mask, "mask bounds", 1.0)[0]


def check_areas(_out: Path) -> Any:
    nano, size = Averages(), (scene.HEIGHT, scene.WIDTH)
    plain = nano.positive
    percent = nodes.ConditioningSetAreaPercentage()
    prompts = {
        "even": _area(plain, 8, 8, 4, 2),
        "odd": _area(plain, 9, 7, 5, 3),
        "one odd, to the edge": _area(plain, 40, 40, 3, 4),
        "percent": percent.append(plain, 0.6, 0.5, 0.25, 0.3, 1.0)[0],
        "mask bounds": _mask(plain, 9, 8, 7, 5, size),
        "two of a size": plain + _area(plain, 8, 8, 1, 4) + _area(plain, 8, 8, 8, 1),
        "of three sizes": plain + _area(plain, 8, 8, 1, 1) + _area(plain, 12, 6, 2, 7),
    }
    results: dict[str, Any] = {}
    for pictures in (1, 2):
        image, noise = scene.pictures(1, pictures), scene.noise(2)
        for name, prompt in prompts.items():
            nano.positive = prompt
            found = seen(nano, nano.guided(image), image, noise)
            results[f"{name}, {pictures} pictures"] = [found.off, sorted(set(found.places))]
    nano.positive = prompts["two of a size"]
    image, noise = scene.pictures(1), scene.noise()
    with replace.object(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: 0):
        apart = seen(nano, nano.guided(image), image, noise)
    results["apart"] = [apart.off, sorted(set(apart.places))]
    results["calls apart"] = apart.calls
    return results


def check_area_of_all(_out: Path) -> Any:
    """An area as large as the picture is the picture."""
    nano, image, noise = scene.Nano(), scene.pictures(1), scene.noise()
    model = nano.guided(image)
    whole = nano.sample(model, noise)
    nano.positive = _area(nano.positive, scene.HEIGHT, scene.WIDTH, 0, 0)
    return {"difference": scene.difference(nano.sample(model, noise), whole)}


#: Tiles of 16 positions.
TILE, OVERLAP = 16 * scene.FACTOR, 8 * scene.FACTOR
HEIGHT, WIDTH = 33, 29


def check_areas_in_tiles(_out: Path) -> Any:
    nano, noise = Averages(), scene.noise(1, HEIGHT, WIDTH)
    image = scene.pictures(1, 1, HEIGHT, WIDTH)
    plain = nano.positive
    nano.positive = plain + _area(plain, 24, 20, 5, 7) + _area(plain, 24, 20, 6, 2)
    results: dict[str, Any] = {}
    for phase in ("tile", "canvas"):
        canvas = _Canvas()
        with replace.object(whole_phase, "fit", canvas.fit):
            found = seen(nano, tile_model(nano.guided(image), TILE, OVERLAP, phase=phase), image, noise)
        results[phase] = [found.off, sorted(set(found.places))]
        results[f"{phase}, sizes exchanged"] = sorted(canvas.sizes)
    two, noise = scene.pictures(1, 2), scene.noise(2)
    in_parts = seen(nano, tile_model(nano.guided(two), frames=1), two, noise)
    results["in parts"] = [in_parts.off, sorted(set(in_parts.places))]
    return results


class _Canvas:
    """Sizes of the features that are exchanged over whole canvases."""

    def __init__(self) -> None:
        self.sizes: set[tuple[int, int]] = set()

    def fit(self, f: torch.Tensor, height: int, width: int) -> torch.Tensor:
        assert tuple(f.shape[-2:]) == (height, width)
        self.sizes.add((height, width))
        return f
