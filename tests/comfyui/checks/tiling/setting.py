"""What the checks of PGP-DiffSR Tiling share: a canvas, models that are easy to predict, and watchers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .. import scene

#: Latent positions: tiles of 16 with an overlap of 8 lie at 0, 8 and 16 down, and at 0, 8 and 12 across.
HEIGHT, WIDTH = 33, 29
TILE, OVERLAP = 16 * scene.FACTOR, 8 * scene.FACTOR


def wrapped(model: Any, wrapper: Any) -> Any:
    """The MODEL with another pack's wrapper."""
    copy = model.clone()
    copy.set_model_unet_function_wrapper(wrapper)
    return copy


def neighbours(_apply: Any, args: dict[str, Any]) -> torch.Tensor:
    """A model that looks no further than the next position."""
    x = args["input"]
    sums = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    result: torch.Tensor = torch.tanh(sums * 0.3 + args["c"]["c_crossattn"].mean())
    return result


class Wrapper:
    """Another pack's: counts, and does as it is told."""

    def __init__(self, act: Callable[..., torch.Tensor] | None = None) -> None:
        self.act = act or (lambda apply, args: apply(args["input"], args["timestep"], **args["c"]))
        self.places: list[tuple[int, int]] = []
        self.shapes: list[list[int]] = []
        self.moved = self.ended = 0

    def __call__(self, apply: Any, args: dict[str, Any]) -> torch.Tensor:
        tile = args["c"]["transformer_options"].get("pgp_tile")
        self.places.append((tile.y, tile.x) if tile else (-1, -1))
        self.shapes.append(list(args["input"].shape))
        return self.act(apply, args)

    def to(self, _: Any) -> Wrapper:
        self.moved += 1
        return self

    def models(self) -> list[Any]:
        return []

    def cleanup(self) -> None:
        self.ended += 1


def setting(batch: int = 1, height: int = HEIGHT, width: int = WIDTH) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Nano, pictures and noise."""
    return scene.Nano(), scene.pictures(1, batch, height, width), scene.noise(batch, height, width)


class Last:
    """A callback that keeps what it was given."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []

    def __call__(self, step: int, x0: torch.Tensor, x: torch.Tensor, steps: int) -> None:
        self.x0 = x0
        self.steps.append([step, steps, len(x)])
