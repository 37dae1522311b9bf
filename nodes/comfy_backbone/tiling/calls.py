"""Core's model function wrapper that calls a MODEL tile by tile."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import comfy.model_management as mm
import torch
from comfy.model_base import BaseModel

from ....pgp_core.errors import PGPError
from ....pgp_core.guidance.whole_phase import CanvasPhase, Reached
from ....pgp_core.images.wrap import MARGIN, PLAIN, Wrap
from ....pgp_core.tiling import Fitting, Tile, automatic, blended, out_of_memory
from ....pgp_core.tiling.fitting import LEAST
from .. import left_behind
from ..current_tile import calling
from ..guidance import GuidancePatch, guidance_in
from ..places import current_call
from . import micro_conditioning
from .cropping import cropped
from .full_precision import in_float32
from .masks import check_masks
from .patches import patches_on
from .states import TileStates, Try

log = logging.getLogger(__name__)


class TiledCalls:
    """What core calls in place of a MODEL, at every step and for every batch of conditionings.

    Core finds :meth:`to`, :meth:`models` and :meth:`cleanup` on it; they go on to the wrapper that was there before,
    which is called for each tile in place of the MODEL.

    Args:
        tile: side in latent positions; None for what :func:`pgp_core.tiling.automatic` chooses.
        overlap: in latent positions.
        blend: see :func:`pgp_core.tiling.window.window`.
        whole_canvas: whether PEAM exchanges phases over the whole canvas.
        scale: pixels per latent position.
        previous: the MODEL's wrapper so far, or None.
        wrap: along which axes the latent repeats. What lies in its margins is then never looked at: the sampler's
            noise there is another.
    """

    #: That a call asks ``transformer_options["pgp_groups"]``, see :class:`pgp_core.tiling.Groups`.
    takes_groups = True

    def __init__(
        self,
        tile: int | None,
        overlap: int,
        blend: str,
        whole_canvas: bool,
        scale: int,
        previous: Any,
        wrap: Wrap = PLAIN,
    ):
        self.wrap, self.margin = wrap, MARGIN // scale
        self.tile, self.overlap, self.blend = tile, overlap, blend
        self.whole_canvas, self.scale, self.previous = whole_canvas, scale, previous
        #: Sides that had to be halved to fit, by batch size; for runs to come.
        self.found: dict[int, int] = {}
        self._run = _Run()

    def to(self, where: Any) -> TiledCalls:
        """Core calls it with devices and dtypes."""
        if hasattr(self.previous, "to"):
            self.previous = self.previous.to(where)
        return self

    def models(self) -> list[Any]:
        """What core must have loaded."""
        return self.previous.models() if hasattr(self.previous, "models") else []

    def cleanup(self) -> None:
        """End of a run."""
        if hasattr(self.previous, "cleanup"):
            self.previous.cleanup()

    @contextlib.contextmanager
    def run(self, latent: tuple[int, int], base: BaseModel, model_options: dict[str, Any]) -> Iterator[None]:
        """A run of a sampler, for latents of a height and width, on a ``BaseModel``."""
        before, self._run = self._run, _Run(latent, base, left_behind.outside(model_options))
        try:
            yield
        finally:
            self._run.states.close()
            self._run = before

    def part(self) -> None:
        """Other latents than before: what patches remember of those is none of theirs."""
        self._run.states.close()
        self._run.states = TileStates()

    def __call__(self, apply_model: Callable[..., torch.Tensor], args: dict[str, Any]) -> torch.Tensor:
        x = args["input"]
        if x.ndim != 4:
            return self.model(apply_model, args)
        call = _Call(self, self._run, apply_model, {**args, "input": self.wrap.repeated(x, self.margin)})
        fitting = self._fitting(x, call.base)
        size, before = (x.shape[-2], x.shape[-1]), fitting.tile
        out = fitting.run(*size, lambda tiles: call.denoised(tiles, fitting.overlap))
        if fitting.tile != before and fitting.tile is not None:
            self.found[x.shape[0]] = fitting.tile
            side = fitting.tile * self.scale
            log.warning(
                "PGP-DiffSR Tiling: out of memory; from here on in tiles of %d x %d pixels with an overlap of %d",
                *(side, side, fitting.overlap * self.scale),
            )
        elif size not in self._run.told and not (tiles := fitting.tiles(*size))[0].whole:
            log.info(
                "PGP-DiffSR Tiling: %d tiles of %d x %d pixels",
                *(len(tiles), tiles[0].width * self.scale, tiles[0].height * self.scale),
            )
        self._run.told.add(size)
        return self.wrap.repeated(out, self.margin)

    def model(self, apply_model: Callable[..., torch.Tensor], args: dict[str, Any]) -> torch.Tensor:
        """The MODEL, or the wrapper that was there before."""
        if self.previous is not None:
            return self.previous(apply_model, args)
        return apply_model(args["input"], args["timestep"], **args["c"])

    def _fitting(self, x: torch.Tensor, base: BaseModel | None) -> Fitting:
        """The run's tile size for latents like x; the tiles of a run stay where they are."""
        size = tuple(x.shape[-2:])
        if size not in self._run.fitting:
            sides = [self.tile, self.found.get(x.shape[0])]
            if sides == [None, None]:
                sides = [_guessed(x, self.overlap, base)]
            smallest = min((s for s in sides if s is not None), default=None)
            self._run.fitting[size] = Fitting(smallest, self.overlap, free=mm.soft_empty_cache)
        return self._run.fitting[size]


class _Run:
    """What is known during one run of a sampler."""

    def __init__(
        self, latent: tuple[int, int] | None = None, base: BaseModel | None = None, outside: Sequence[Any] = ()
    ):
        self.latent, self.base = latent, base
        #: Functions of other packs that are called for the whole picture.
        self.outside = outside
        self.states = TileStates()
        self.fitting: dict[tuple[int, ...], Fitting] = {}
        #: Sizes of latents whose tiles were logged.
        self.told: set[tuple[int, ...]] = set()
        self.overflow_told = self.wrap_seen = False
        self.without_masks: dict[int, Any] = {}


class _Call:
    """One call of core's."""

    def __init__(self, tiled: TiledCalls, run: _Run, apply_model: Callable[..., torch.Tensor], args: dict[str, Any]):
        self._tiled, self._run, self._apply_model, self._args = tiled, run, apply_model, args
        owner = getattr(apply_model, "__self__", None)
        self.base = owner if isinstance(owner, BaseModel) else run.base
        self._options = args["c"].get("transformer_options", {})
        self._guidance = guidance_in(self._options)
        self._phase: CanvasPhase | None = None
        self._patches: list[Any] = []
        self._remembers = False
        size = tuple(args["input"].shape[-2:])
        if tiled.wrap and (size != run.latent or not run.wrap_seen):
            _check_wrap(tiled.wrap, size, run.latent, tiled.margin, self._guidance)
            run.wrap_seen = True

    def denoised(self, tiles: Sequence[Tile], overlap: int) -> torch.Tensor:
        """What the MODEL makes of its input.

        Raises:
            torch.OutOfMemoryError, MemoryError: where a tile does not fit.
            PGPError: where the result is not finite, not even in float32; where something knows of the whole picture
                only.
        """
        call, states = current_call(), self._run.states
        if call is not None and call.gligen and len(tiles) > 1:
            raise PGPError(
                "PGP-DiffSR Tiling: GLIGEN's boxes lie in the whole picture, and tiles cannot follow them; leave "
                "GLIGEN out, or sample without tiles"
            )
        # One tile that is all there is needs no memory of its own.
        self._remembers = self._run.latent is not None and (len(tiles) > 1 or states.used)
        if not self._remembers:
            return self._blended(tiles, overlap)
        self._patches = patches_on(self.base, self._options, self._tiled.previous)
        if len(tiles) > 1:
            check_masks(self._patches, self._run.without_masks)
        with states.call(self._patches):
            return self._blended(tiles, overlap)

    def _blended(self, tiles: Sequence[Tile], overlap: int) -> torch.Tensor:
        options, coarse = self._options, self._coarse(tiles)
        self._phase = None
        if self._tiled.whole_canvas and self._guidance is not None and 1 < len(tiles) > len(coarse):
            phase = self._phase = self._guidance.canvas_phase(options, "PGP-DiffSR Tiling: ")
            phase.gather(self._features, tiles, overlap, self._tiled.blend, self._guidance.exchanging(options))
        return blended(lambda t: coarse[t] if t in coarse else self._tile(t), tiles, overlap, self._tiled.blend)

    def _coarse(self, tiles: Sequence[Tile]) -> dict[Tile, torch.Tensor]:
        """What stands for tiles for which the MODEL need not be called."""
        if (groups := self._options.get("pgp_groups")) is None:
            return {}
        x, call = self._args["input"], current_call()
        if self._run.latent not in (None, tuple(x.shape[-2:])):
            raise PGPError(
                "PGP-DiffSR Adaptive: a conditioning or a context window is for an area of the picture, which its "
                "groups of tiles do not follow; set the conditioning with a mask instead, or leave Adaptive out"
            )
        sigma, latents = float(self._args["timestep"][0]), None if call is None else call.latents
        answers = ((t, groups.skip(t, sigma, t.crop(x), latents)) for t in tiles)
        return {t: known for t, known in answers if known is not None}

    def _tile(self, tile: Tile) -> torch.Tensor:
        with self._state(tile) as attempt:
            out = self._finite(lambda: self._model(tile), attempt)
        if self._remembers and not tile.whole:
            self._check_left(tile)
        return out

    def _features(self, tile: Tile) -> torch.Tensor | None:
        """What a tile has where phases are exchanged next."""

        def reach() -> torch.Tensor | None:
            try:
                self._model(tile)
            except Reached as reached:
                return reached.features
            return None

        with self._state(tile) as attempt:
            # The same call comes again, to its end.
            attempt.kept = False
            return self._finite(reach, attempt)

    @contextlib.contextmanager
    def _state(self, tile: Tile) -> Iterator[Try]:
        """While it lasts, other packs' patches remember what they remembered of this tile."""
        if not self._remembers:
            yield Try(lambda: None)
            return
        shape = tile.crop(self._args["input"]).shape
        with self._run.states.of(tile, self._patches, shape) as attempt:
            yield attempt

    def _check_left(self, tile: Tile) -> None:
        """Nothing of a tile may be taken for the whole picture's.

        Raises:
            PGPError: where a function that is called for the whole picture reads it.
        """
        for holder, slot in self._run.states.stored(tile.crop(self._args["input"]).shape):
            for function in self._run.outside:
                if left_behind.reads(function, holder.owner, slot):
                    raise PGPError(
                        f"PGP-DiffSR Tiling: {left_behind.label(function)} needs what the model computes of the whole "
                        "picture, and gets a tile's; take it out, or sample without tiles"
                    )

    def _model(self, tile: Tile) -> torch.Tensor:
        mm.throw_exception_if_processing_interrupted()
        c = cropped(self._args["c"], tile)
        if self._guidance is not None and self._guidance.has_alignment and "y" in c:
            embedder = getattr(self.base, "embedder", None)
            areas = self._guidance.areas(self._options)
            c["y"] = micro_conditioning.of_tile(c["y"], tile, self._tiled.scale, embedder, areas)
        try:
            # Copies, as core's own input is one: some patches add to it in place, and tiles share their edges.
            x = tile.crop(self._args["input"]).clone()
            with calling(tile, self._phase):
                return self._tiled.model(self._apply_model, {**self._args, "input": x, "c": c})
        except RuntimeError as error:
            # Core knows more of what drivers say.
            if mm.is_oom(error) and not out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            raise

    def _finite(self, run: Callable[[], Any], attempt: Try) -> Any:
        """A result without NaN and infinity: where there are some, it is made once more in float32."""
        out = run()
        if out is None or out.isfinite().all():
            return out
        if not self._args["input"].isfinite().all():
            raise PGPError("PGP-DiffSR Tiling: the latent is not finite already before the model; see what made it")
        if self.base is not None and (dtype := self.base.get_dtype_inference()) != torch.float32:
            if not self._run.overflow_told:
                self._run.overflow_told = True
                log.warning("PGP-DiffSR Tiling: the model overflowed in %s; what did so is run again in float32", dtype)
            del out
            attempt.again()
            with in_float32(self.base):
                out = run()
            if out is None or out.isfinite().all():
                return out
        raise PGPError(
            "PGP-DiffSR Tiling: the model's result is not finite, not even in float32; its weights, a LoRA or the "
            "conditioning are damaged"
        )


def _check_wrap(
    wrap: Wrap, size: tuple[int, ...], latent: tuple[int, int] | None, margin: int, guidance: GuidancePatch | None
) -> None:
    """Whether the canvas has the margins that wrapping takes, and all of it is called."""
    if latent is not None and size != latent:
        raise PGPError(
            "PGP-DiffSR Tiling: with wrap the whole picture repeats; leave out areas of conditionings, context windows "
            "and what else cuts the latent, or use masks"
        )
    fits = all(size[dim] > 2 * margin for dim in wrap.dims)
    if fits and guidance is not None:
        fits = all(torch.equal(wrap.repeated(lq, MARGIN), lq) for lq in guidance.lq)
    if not fits:
        raise PGPError(
            f"PGP-DiffSR Tiling: wrap is {wrap.name}, but the picture does not repeat so; set wrap to the same in "
            "PGP-DiffSR Canvas, and connect its canvas"
        )


def _guessed(x: torch.Tensor, overlap: int, base: BaseModel | None) -> int | None:
    """The side of the tiles to begin with, by what the MODEL's own estimate has room for; None for all of x."""
    height, width = x.shape[-2:]
    if base is None:
        return automatic(height, width, overlap, None)
    patcher = getattr(base, "current_patcher", None)
    # With dynamic VRAM that counts what the MODEL's weights would make room for.
    free = patcher.get_free_memory(x.device) if patcher is not None else mm.get_free_memory(x.device)
    room = height * width * max(free, 0) / base.memory_required(list(x.shape))
    tile = automatic(height, width, overlap, room)
    return None if tile is None else max(LEAST, tile)
