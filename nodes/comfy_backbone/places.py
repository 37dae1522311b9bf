"""Where in the latent that is sampled a call of the model lies: areas of conditionings, and context windows.

Core cuts the latent for both before it calls the model, and tells the model of neither. What it goes by is known where
it calculates a batch of conditionings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import comfy.samplers
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ...pgp_core.errors import PGPError
from ...pgp_core.tiling import Tile

KEY = "pgp_diffsr_places"
# Not in the call's options: a compiled network takes every name in them for one that will always be there.
_CALL: ContextVar[Call | None] = ContextVar("pgp_diffsr_call", default=None)


@dataclass(frozen=True)
class Piece:
    """A rectangle of the latent that is sampled, in latent positions."""

    y: int
    x: int
    height: int
    width: int

    def within(self, y: int, x: int) -> Piece:
        """The same, counted from where its own whole lies."""
        return Piece(self.y + y, self.x + x, self.height, self.width)

    def tile(self, tile: Tile) -> Piece:
        """A tile of it."""
        return Piece(self.y + tile.y, self.x + tile.x, tile.height, tile.width)


@dataclass(frozen=True)
class Call:
    """One batch of conditionings, as core calculates it.

    Attributes:
        latents: numbers of the run's latents that are in it; None for all.
        origin: where its latent lies in the run's; None where it skips or repeats positions.
        size: height and width of its latent.
        slides: whether it is a window over height or width.
        areas: of each conditioning by core's number of it, within its latent; None where two differ.
        gligen: whether a conditioning has GLIGEN's boxes.
    """

    latents: tuple[int, ...] | None
    origin: tuple[int, int] | None
    size: tuple[int, int]
    slides: bool
    areas: Mapping[Any, Piece | None]
    gligen: bool

    def pieces(self, numbers: Sequence[Any]) -> list[Piece | None]:
        """Where the chunks of a batch lie within this latent; None where that is not known."""
        return [self.areas.get(number) for number in numbers]


def watch(model: ModelPatcher) -> None:
    """Let a MODEL's calls know their :class:`Call`; once is enough."""
    if KEY not in model.wrappers.get(WrappersMP.CALC_COND_BATCH, {}):
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, _told)


def current_call() -> Call | None:
    """What core calculates now; None outside of that, and for a MODEL that is not watched."""
    return _CALL.get()


def _told(
    executor: WrapperExecutor,
    model: BaseModel,
    conds: list[Any],
    x_in: torch.Tensor,
    timestep: Any,
    model_options: dict[str, Any],
) -> Any:
    """Core's CALC_COND_BATCH wrapper."""
    if "multigpu_clones" in model_options:
        raise PGPError(
            "PGP-DiffSR: this MODEL is spread over several devices, which its guidance and tiles do not follow; leave "
            "out MultiGPU CFG Split"
        )
    if x_in.ndim != 4:
        return executor(model, conds, x_in, timestep, model_options)
    token = _CALL.set(_call(conds, x_in, timestep, model_options))
    try:
        return executor(model, conds, x_in, timestep, model_options)
    finally:
        _CALL.reset(token)


def _call(conds: list[Any], x: torch.Tensor, timestep: Any, model_options: dict[str, Any]) -> Call:
    areas: dict[Any, Piece | None] = {}
    given = [c for some in conds for c in some or ()]
    for cond in given:
        number, area = cond.get("uuid"), _area(cond, x, timestep)
        areas[number] = area if areas.get(number, area) == area else None
    latents, origin, slides = _window(model_options)
    size = x.shape[-2], x.shape[-1]
    return Call(latents, origin, size, slides, areas, any("gligen" in c for c in given))


def _area(cond: dict[str, Any], x: torch.Tensor, timestep: Any) -> Piece:
    """By core's own reckoning, which fits areas into the latent."""
    if "area" not in cond:
        return Piece(0, 0, x.shape[-2], x.shape[-1])
    bare = {"area": cond["area"], "model_conds": {}, "uuid": None}
    found = comfy.samplers.get_area_and_mult(bare, torch.empty(x.shape, device="meta"), timestep).area
    height, width, y, x_ = found
    return Piece(y, x_, height, width)


def _window(model_options: dict[str, Any]) -> tuple[tuple[int, ...] | None, tuple[int, int] | None, bool]:
    """Numbers of the latents of core's context window, where it lies, and whether it is one over height or width."""
    handler = model_options.get("context_handler")
    window = model_options.get("transformer_options", {}).get("context_window")
    if handler is None or window is None:
        return None, (0, 0), False
    # As core takes them out of the latent, with the frame before the window and those that every window keeps.
    kept = getattr(handler, "latent_retain_index_list", [])
    taken = window.get_tensor(torch.arange(window.total_frames), torch.device("cpu"), dim=0, retain_index_list=kept)
    numbers = tuple(taken.tolist())
    if window.dim == 0:
        return numbers, (0, 0), False
    first = numbers[0]
    if numbers != tuple(range(first, first + len(numbers))):
        return None, None, True
    return None, (first, 0) if window.dim == 2 else (0, first), True
