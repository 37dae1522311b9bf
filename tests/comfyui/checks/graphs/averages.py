"""Nano with an LQ adapter that averages: what a UNet feature meets is the mean of the pixels below it.

Where in the picture an entry of a batch lies is found in what the UNet is given, not asked of the code under test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch as replace

import torch
from comfy.patcher_extension import WrappersMP
from pgp_pack.pgp_core.guidance.module import Guidance

from .. import scene

#: Pixels that a feature of nano's two sites averages: a latent position, and 2 x 2 of them.
CELLS = (scene.FACTOR, 2 * scene.FACTOR)


class Averages(scene.Nano):
    """Nano whose LQ features are averages of 4 x 4 and 8 x 8 pixels, red, green and blue in turn."""

    def __init__(self) -> None:
        super().__init__()
        adapter = self.patch.model.lq_adapter
        for conv in (m for m in adapter.body.modules() if hasattr(m, "block2")):
            conv.block2.weight.zero_()
            conv.block2.bias.zero_()
        weight = adapter.conv_in.weight
        weight.zero_()
        adapter.conv_in.bias.zero_()
        for c in range(weight.shape[0]):
            colour = c % 3
            weight[c, colour * scene.FACTOR**2 : (colour + 1) * scene.FACTOR**2, 1, 1] = 1 / scene.FACTOR**2


class Seen:
    """What one step of a run showed."""

    def __init__(self) -> None:
        #: Latent, top, left, height and width of each entry that the UNet was given.
        self.places: list[tuple[int, int, int, int, int]] = []
        #: By how much the features that they met differ from the pixels' averages, at most.
        self.off = 0.0
        self.calls = self.met = 0


def seen(
    nano: Averages,
    model: Any,
    image: torch.Tensor,
    noise: torch.Tensor,
    cfg: float = scene.CFG,
    sample: Callable[[Any], Any] | None = None,
) -> Seen:
    """One step of a guided MODEL, from noise in which every place can be told.

    Args:
        image: ``(B, H, W, 3)``, one or one per latent.
        sample: samples the whole latents, for any number of steps; by default as the KSampler node does.
    """
    result, met = Seen(), []
    fuse = Guidance.fuse

    def noting(self: Any, site: int, h: torch.Tensor, f: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        met.append((site, f.expand(h.shape[0], -1, -1, -1)))
        return fuse(self, site, h, f, *args, **kwargs)

    def apply(executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result.calls += 1
        met.clear()
        out = executor(x, *args, **kwargs)
        for i, row in enumerate(x):
            place = _find(row, noise) if sample is None else (i % len(noise), 0, 0, *noise.shape[-2:])
            result.places.append(place)
            for site, f in met:
                off = _off(f[i], image, place, CELLS[site], nano.patch.model.spec.input_range)
                result.off = max(result.off, off)
            result.met += len(met)
        return out

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "watched", apply)
    with replace.object(Guidance, "fuse", noting):
        if sample is None:
            nano.sample(watched, noise, steps=1, cfg=cfg)
        else:
            sample(watched)
    return result


def _find(row: torch.Tensor, noise: torch.Tensor) -> tuple[int, int, int, int, int]:
    """The piece of noise that a row is a multiple of."""
    products = torch.nn.functional.conv2d(noise, row[None])
    norms = torch.nn.functional.conv2d(noise.square(), torch.ones_like(row[None])).sqrt()
    alike = (products / norms / row.norm())[:, 0]
    n, y, x = (int(i) for i in torch.unravel_index(alike.argmax(), alike.shape))
    assert alike[n, y, x] > 0.999, "what the UNet was given is no piece of the noise"
    return n, y, x, row.shape[-2], row.shape[-1]


def _off(f: torch.Tensor, image: torch.Tensor, place: tuple[int, ...], cell: int, limits: tuple[float, float]) -> float:
    n, y, x, height, width = place
    picture = image[n if len(image) > 1 else 0].movedim(-1, 0)
    there = picture[:, y * scene.FACTOR :, x * scene.FACTOR :]
    size = [-(-length * scene.FACTOR // cell) for length in (height, width)]
    # At the picture's edge, of the pixels that there are.
    means = torch.nn.functional.avg_pool2d(there, cell, ceil_mode=True)[:, : size[0], : size[1]]
    expected = means * (limits[1] - limits[0]) + limits[0]
    if f.shape[-2:] != expected.shape[-2:]:
        return float("inf")
    return scene.difference(f, expected[torch.arange(f.shape[0]) % 3])
