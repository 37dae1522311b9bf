"""PGP-DiffSR Adaptive on nano in tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pgp_pack.nodes.comfy_backbone import adaptive_model, tile_model
from pgp_pack.pgp_core.errors import PGPError
from pgp_pack.pgp_core.tiling import Split

from . import scene

#: Tiles of 16 positions with an overlap of 8 lie at 0, 8 and 16 down, and at 0 and 8 across.
HEIGHT, WIDTH = 32, 24
TILE, OVERLAP = 16 * scene.FACTOR, 8 * scene.FACTOR
HALVES = Split(0.5, 0.0)


def _mask(batch: int = 1) -> torch.Tensor:
    """Hard below."""
    mask = torch.zeros(batch, HEIGHT, WIDTH)
    mask[:, HEIGHT // 2 :] = 1
    return mask


def _adaptive(model: Any, split: Split = HALVES, starts: tuple[float, float] = (0.4, 1.0), batch: int = 1) -> Any:
    latent = {"samples": torch.zeros(batch, scene.CHANNELS, HEIGHT, WIDTH)}
    return adaptive_model(model, _mask(), latent, split, starts, 1)


def check_adaptive_calls(_out: Path) -> Any:
    """Which tiles the MODEL is called for, by timestep."""
    nano = scene.Nano()
    calls: list[tuple[float, int, int]] = []

    def count(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        tile = args["c"]["transformer_options"]["pgp_tile"]
        calls.append((round(float(args["timestep"][0]), 3), tile.y, tile.x))
        result: torch.Tensor = apply(args["input"], args["timestep"], **args["c"])
        return result

    model = nano.guided(scene.pictures(1, 2, HEIGHT, WIDTH)).clone()
    model.set_model_unet_function_wrapper(count)
    tiled = tile_model(model, TILE, OVERLAP)
    noise = scene.noise(2, HEIGHT, WIDTH)
    with scene.Messages() as messages:
        result = nano.sample(_adaptive(tiled, batch=2), noise)
    own, calls = calls, []
    sigmas = sorted({s for s, *_ in own}, reverse=True)
    whole = nano.sample(tiled, noise)
    return {
        "tiles": [sorted({(y, x) for s, y, x in own if s == sigma}) for sigma in sigmas],
        "calls without": len(calls),
        "calls": len(own),
        "finite": bool(result.isfinite().all()),
        "differs": scene.difference(result, whole),
        "log": [m for m in messages.lines if "PGP-DiffSR Adaptive" in m],
        "all hard is the tiled MODEL": torch.equal(
            nano.sample(_adaptive(tiled, Split(0.0, 1.0), batch=2), noise), whole
        ),
        "tiled MODEL untouched": "pgp_groups" not in tiled.model_options["transformer_options"],
    }


def check_adaptive_frames(_out: Path) -> Any:
    """A batch that is sampled one by one: of each picture, its own mask."""
    nano = scene.Nano()
    masks = torch.cat([_mask(), _mask().flip(1)])
    noise = scene.noise(2, HEIGHT, WIDTH)
    image = scene.pictures(1, 2, HEIGHT, WIDTH)

    def sampled(which: slice, frames: int) -> torch.Tensor:
        latent = {"samples": torch.zeros_like(noise[which])}
        tiled = tile_model(nano.guided(image[which]), TILE, OVERLAP, frames=frames)
        return nano.sample(adaptive_model(tiled, masks[which], latent, HALVES, (0.4, 1.0), 1), noise[which])

    together = sampled(slice(None), 1)
    alone = [sampled(slice(i, i + 1), 0) for i in range(2)]
    return {"difference": scene.difference(together, torch.cat(alone))}


def check_adaptive_coarse(_out: Path) -> Any:
    """A MODEL whose latent is no residual starts easy tiles from the encoded canvas; here nothing else happens."""
    nano = scene.Nano()
    coarse = torch.randn(1, scene.CHANNELS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) / 20
    plain = type("Plain", (type(nano.model.model.latent_format),), {"is_residual": False})()
    nano.model.model.latent_format = plain
    tiled = tile_model(nano.model, TILE, OVERLAP)
    # Flat: every tile waits until the last of the steps.
    mask = torch.zeros(1, HEIGHT, WIDTH)
    model = adaptive_model(tiled, mask, {"samples": coarse}, Split(1.0, 0.0), (0.0, 1.0), 1)
    seen: list[torch.Tensor] = []

    def watch(_i: int, x0: torch.Tensor, _x: torch.Tensor, _n: int) -> None:
        seen.append(x0)

    nano.sample(model, scene.noise(1, HEIGHT, WIDTH), callback=watch)
    expected = nano.model.model.process_latent_in(coarse)
    return {"differences": [scene.difference(x0, expected) for x0 in seen], "scale": float(expected.abs().max())}


def check_adaptive_refusals(_out: Path) -> Any:
    nano = scene.Nano()
    tiled = tile_model(nano.model, TILE, OVERLAP)
    plain = nano.model.clone()
    plain.model_options["model_function_wrapper"] = lambda apply, args: None
    other = {"samples": torch.zeros(1, scene.CHANNELS, HEIGHT, WIDTH + 8)}
    right = {"samples": torch.zeros(1, scene.CHANNELS, HEIGHT, WIDTH)}
    noise = scene.noise(1, HEIGHT, WIDTH)

    def adaptive(model: Any = tiled, mask: Any = None, latent: Any = right, starts: Any = (0.2, 0.4)) -> Any:
        return adaptive_model(model, _mask() if mask is None else mask, latent, HALVES, starts, 2)

    results = {}
    for name, act in {
        "not tiled": lambda: adaptive(nano.model),
        "wrapped by another": lambda: adaptive(plain),
        "twice": lambda: adaptive(adaptive()),
        "another mask": lambda: adaptive(mask=torch.zeros(1, HEIGHT, 2 * WIDTH)),
        "three masks": lambda: adaptive(mask=_mask(3)),
        "another latent": lambda: nano.sample(adaptive(latent=other, mask=torch.zeros(1, HEIGHT, WIDTH + 8)), noise),
        "starts": lambda: adaptive(starts=(0.5, 0.3)),
    }.items():
        try:
            act()
        except PGPError as e:
            results[name] = str(e)
    return results
