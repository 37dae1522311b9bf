"""The phase exchange of tiles: in each, or over the whole canvas."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.pgp_core.choices import PHASES
from pgp_pack.pgp_core.guidance.module import Guidance
from pgp_pack.pgp_core.tiling import grid

from .. import scene
from .setting import HEIGHT, OVERLAP, TILE, WIDTH, setting


def check_tiling_on_nano(_out: Path) -> Any:
    """Its own weights, at which PEAM is what it was trained to be."""
    nano = scene.Nano()
    nano.patch = comfy_backbone.load_nano()[1]
    image, noise = scene.pictures(1, 1, HEIGHT, WIDTH), scene.noise(1, HEIGHT, WIDTH)
    guided = nano.guided(image)
    whole = nano.sample(guided, noise, steps=2)
    results: dict[str, Any] = {"size": float(whole.std())}
    for phase in PHASES:
        in_tiles = nano.sample(tile_model(guided, 96, 64, phase=phase), noise, steps=2)
        results[phase] = float((in_tiles - whole).std())
        before = tile_model(nano.model, 96, 64, phase=phase)
        before = comfy_backbone.apply_guidance(before, nano.patch, image, 1.0, 0.0, 1.0)
        results[f"{phase}, other order"] = scene.difference(nano.sample(before, noise, steps=2), in_tiles)
    return results


def check_tiling_whole_canvas(_out: Path) -> Any:
    """What each tile's PEAM is given, against an exchange over features blended by hand."""
    nano, image, noise = setting(2)
    fused: list[tuple[torch.Tensor, torch.Tensor, Any]] = []
    fuse = Guidance.fuse

    def noting(self: Any, site: int, h: Any, f: Any, strength: float = 1.0, exchange: bool = True, phased: Any = None):  # type: ignore[no-untyped-def]
        if self.exchanges(site):
            fused.append((h.clone(), f.clone(), phased))
        return fuse(self, site, h, f, strength, exchange, phased)

    def sample(phase: str) -> list[Any]:
        fused.clear()
        with replace.object(Guidance, "fuse", noting):
            nano.sample(tile_model(nano.guided(image), TILE, OVERLAP, phase=phase), noise, steps=1)
        return fused.copy()

    alone, together = sample("tile"), sample("canvas")
    tiles = grid(HEIGHT, WIDTH, 16, 8)
    size = (17, 15)
    total, share = torch.zeros(4, 64, *size), torch.zeros(size)
    for (h, _, _), tile in zip(alone, tiles, strict=True):
        y, x = tile.y // 2, tile.x // 2
        weight = torch.outer(_ramp(y, h.shape[-2], size[0], 4), _ramp(x, h.shape[-1], size[1], 4))
        total[..., y : y + h.shape[-2], x : x + h.shape[-1]] += h * weight
        share[y : y + h.shape[-2], x : x + h.shape[-1]] += weight
    h = total / share
    guided = nano.guided(image)
    patch, kept = scene.patch_of(guided), []
    (site,) = patch.exchanging({"sigmas": torch.ones(1)})
    nano.sample(guided, noise, steps=1, callback=lambda *_: kept.append(patch.features[site]))
    f = kept[0].repeat(2, 1, 1, 1)
    own, phase = torch.fft.fft2(h.double()), torch.fft.fft2(f.double())
    expected = torch.fft.ifft2(own.abs() * phase / phase.abs()).real
    differences = []
    for (_, _, phased), tile in zip(together, tiles, strict=True):
        y, x = tile.y // 2, tile.x // 2
        part = expected[..., y : y + phased.shape[-2], x : x + phased.shape[-1]]
        differences.append(scene.difference(phased.double(), part))
    return {
        "none alone": all(p is None for _, _, p in alone),
        "difference": max(differences),
        "size": float(expected.abs().max()),
        "same features": all(torch.equal(a[1], b[1]) for a, b in zip(alone, together, strict=True)),
    }


def _ramp(start: int, length: int, size: int, overlap: int) -> torch.Tensor:
    """A raised cosine over the middle half of the overlap, 1 at the canvas's edges."""
    at = (torch.arange(length) + 0.5) / overlap
    rise = (1 - torch.cos(torch.pi * (2 * (at - 0.25)).clamp(0, 1))) / 2
    ones = torch.ones(length)
    return (rise if start > 0 else ones) * (rise.flip(0) if start + length < size else ones)
