"""Photographs with the tiles moved by half a tile, against the same tiles with other noise where tiles overlap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pgp_core import schedule
from pgp_core.codecs import pixel as pixel_codec
from pgp_core.evaluation.cases import Case
from pgp_core.evaluation.summary import markdown_table
from pgp_core.restorers.nano import model as nano
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.sampling.denoiser import Denoiser
from pgp_core.sampling.euler import draw_noise
from pgp_core.sampling.options import SampleOptions
from pgp_core.tiling import Tile, blended, grid

from .levels import in_levels

#: Pixels. Half a tile is 96, and no moved tile lies where one lay.
TILE, OVERLAP = 192, 64


def shifted(size: int, tile: int, overlap: int, shift: int) -> list[tuple[int, int]]:
    """Start and length of tiles along one axis that are moved by ``shift``, cut off at both ends."""
    stride = tile - overlap
    starts = [s for s in range(shift % stride - stride, size, stride) if s + tile > overlap and s + overlap < size]
    return [(max(0, s), min(size, s + tile) - max(0, s)) for s in starts]


@torch.inference_mode()
def sampled(pipeline: NanoRestorer, canvas: torch.Tensor, tiles: list[Tile], noise: torch.Tensor, steps: int) -> Any:
    """A canvas restored by Euler's method, in tiles and from noise that the caller has chosen."""
    features, z_l, a = pipeline.guidance.features(canvas), pixel_codec.encode(canvas), schedule.alphas_cumprod()
    times = [i * (schedule.TRAIN_STEPS // steps) + 1 for i in reversed(range(steps))]
    sigmas = [float(((1 - a[t]) / a[t]) ** 0.5) for t in times] + [0.0]
    x = noise * sigmas[0] * schedule.start_gain(sigmas[0], pipeline.latent_std)
    for i, timestep in enumerate(times):
        scaled, t = x / (1 + sigmas[i] ** 2) ** 0.5, torch.tensor([timestep])

        def predict(tile: Tile, scaled: torch.Tensor = scaled, t: torch.Tensor = t) -> torch.Tensor:
            local = tuple(tile.crop(f) for f in features)
            options = SampleOptions(cfg=1.0, steps=steps)
            model = Denoiser(pipeline.unet, pipeline.guidance, local, pipeline.positive, None, options)
            return model(tile.crop(scaled), t)

        out = blended(predict, tiles, OVERLAP // pixel_codec.FACTOR)
        clean = schedule.denoised(pipeline.prediction, out, scaled, t)
        x = clean + (x - clean) * (sigmas[i + 1] / sigmas[i])
    return pixel_codec.decode(z_l + x / nano.SCALE).clamp(0, 1)


def measure(pipeline: NanoRestorer, case: Case, steps: int) -> dict[str, Any]:
    """One photograph: tiles moved by half a tile; the same tiles with other noise where they overlap."""
    factor = pixel_codec.FACTOR
    height, width = (n // factor for n in case.canvas.shape[-2:])
    tile, overlap = TILE // factor, OVERLAP // factor
    tiles = grid(height, width, tile, overlap)
    down, across = (shifted(n, tile, overlap, tile // 2) for n in (height, width))
    moved = [Tile(y, x, h, w, (height, width)) for y, h in down for x, w in across]
    shape = (1, pixel_codec.CHANNELS, height, width)
    noise, other = draw_noise(shape, 0), draw_noise(shape, 1)
    count = torch.zeros(height, width)
    for t in tiles:
        t.crop(count).add_(1)
    shared = count > 1
    first = sampled(pipeline, case.canvas, tiles, noise, steps)
    by_shift = sampled(pipeline, case.canvas, moved, noise, steps)
    by_seed = sampled(pipeline, case.canvas, tiles, torch.where(shared, other, noise), steps)
    return {
        "shared": float(shared.float().mean()),
        "shift": in_levels(by_shift, first),
        "seed": in_levels(by_seed, first),
    }


def table(found: Mapping[str, Any]) -> str:
    """As Markdown."""
    rows = []
    for key, v in found.items():
        share = v["shift"]["rms"] / v["seed"]["rms"]
        figures = [v[w][m] for w in ("shift", "seed") for m in ("rms", "max")]
        rows.append([key, *(f"{x:.2f}" for x in figures), f"{share:.2f}"])
    heads = ["steps, longest side, photograph", "shift: rms", "largest", "seed: rms", "largest", "shift / seed (rms)"]
    return markdown_table(heads, rows)
