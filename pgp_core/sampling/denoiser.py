"""A guided UNet as one function, in tiles where the latent is too large for one call."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from .. import schedule
from ..conditioning.conditioning import Conditioning
from ..errors import PGPError
from ..guidance.acting import ActiveRange, in_turn
from ..guidance.module import Guidance
from ..guidance.on_diffusers import guided
from ..guidance.whole_phase import CanvasPhase, Reached
from ..images.wrap import MARGIN, Wrap
from ..memory import free_memory
from ..tiling import Fitting, Tile, blended, first_tile
from .options import SampleOptions

_log = logging.getLogger(__name__)


class Denoiser:
    """A guided UNet's raw output with classifier-free guidance, for latents of one picture (or a batch).

    Args:
        guidance: None for the UNet alone.
        features: from :meth:`Guidance.features`, computed once per picture; on any device.
        factor: pixels per latent position, for the sizes in ``options.tiling``.
        between: called after each tile; may raise, to stop.
        say: told in one line what is worth knowing and no error.
    """

    def __init__(
        self,
        unet: torch.nn.Module,
        guidance: Guidance | None,
        features: tuple[torch.Tensor, ...],
        positive: Conditioning,
        negative: Conditioning | None,
        options: SampleOptions,
        exchange: bool = True,
        factor: int = 8,
        between: Callable[[], None] | None = None,
        say: Callable[[str], None] = _log.warning,
    ):
        self.unet, self.guidance, self.features = unet, guidance, features
        self.positive, self.negative, self.options, self.exchange = positive, negative, options, exchange
        self.factor, self.between, self.say = factor, between, say
        last = schedule.TRAIN_STEPS - 1
        self._active = ActiveRange.of(options.start_percent, options.end_percent, lambda share: (1 - share) * last)
        self._fitting: Fitting | None = None
        # The features on the UNet's device, as long as the latent is not cut.
        self._near: list[torch.Tensor] = []
        self._said_float32 = False

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """``uncond + cfg * (cond - uncond)``; the batch is [uncond, cond], as everywhere in the field.

        Args:
            x: ``(B, C, h, w)``; the result has its dtype, whatever the UNet's is.
            t: ``(B,)`` timesteps, all equal.

        Raises:
            PGPError: if numbers overflow even in float32.
        """
        if self._fitting is None:
            self._fitting = self._start(x)
        fitting, blend = self._fitting, self.options.tiling.blend
        wrap, margin = Wrap(self.options.wrap), MARGIN // self.factor
        x = wrap.repeated(x, margin)

        def attempt(tiles: list[Tile]) -> torch.Tensor:
            phase = self._canvas_phase(x, t, tiles) if len(tiles) > 1 else None
            return blended(lambda tile: self._of(tile, x, t, phase), tiles, fitting.overlap, blend, self.between)

        return wrap.repeated(fitting.run(x.shape[-2], x.shape[-1], attempt), margin)

    def _start(self, x: torch.Tensor) -> Fitting:
        """The tile size to begin with."""
        wanted, factor, device = self.options.tiling, self.factor, x.device
        say, near = self.say, self._near
        overlap = -(-wanted.overlap // factor)
        tile = wanted.tile // factor or first_tile(self.unet, x, self._copies(), overlap)

        # Neither of these may know the denoiser or the latent: in a ring of references, both, and the features, would
        # stay after a run until Python looks for rings, each as large as the canvas.
        def halved(side: int) -> None:
            say(f"memory ran out: going on in tiles of {side * factor} pixels (--tile {side * factor})")

        def free() -> None:
            near.clear()
            free_memory(device)

        return Fitting(tile, overlap, halved, free)

    def _copies(self) -> int:
        return 2 if self.options.cfg != 1 and self.negative is not None else 1

    def _of(self, tile: Tile, x: torch.Tensor, t: torch.Tensor, phase: CanvasPhase | None) -> torch.Tensor:
        """The prediction of one tile; in float32 where the UNet's own dtype overflows."""
        out = self._predict(tile, x, t, phase)
        if bool(out.isfinite().all()):
            return out
        dtype = next((p.dtype for p in self.unet.parameters()), torch.float32)
        if dtype != torch.float32:
            if not self._said_float32:
                self.say(f"the UNet's numbers overflow in {str(dtype)[6:]}: such tiles are run again in float32")
                self._said_float32 = True
            with _in_float32(self.unet, dtype):
                out = self._predict(tile, x, t, phase)
        if not bool(out.isfinite().all()):
            raise PGPError("the UNet's numbers overflow in float32 too: one of the model's files is damaged")
        return out

    def _predict(self, tile: Tile, whole: torch.Tensor, t: torch.Tensor, phase: CanvasPhase | None) -> torch.Tensor:
        x = tile.crop(whole)
        prompts = [self.positive]
        if self._copies() == 2 and self.negative is not None:
            prompts.insert(0, self.negative)
        if not tile.whole and self.guidance is not None and "alignment" in self.guidance.spec.parts:
            prompts = [p.of_tile(tile, self.factor) for p in prompts]
        copies, n = len(prompts), x.shape[0]
        dtype = next((p.dtype for p in self.unet.parameters()), x.dtype)
        latent = torch.cat([x] * copies).to(dtype)
        tokens = math.lcm(*(p.context.shape[1] for p in prompts))
        # A prompt of several times 77 tokens meets a shorter one: attention over a repeated prompt is the same.
        context = torch.cat([p.context.repeat(n, tokens // p.context.shape[1], 1) for p in prompts])
        pooled = torch.cat([p.pooled.expand(n, -1) for p in prompts])
        # Sizes stay in float32: bfloat16 knows no odd numbers above 256.
        ids = torch.cat([p.time_ids for p in prompts]).to(x.device, torch.float32)
        with self._guided(float(t[0]), tile, phase, x.device):
            out: torch.Tensor = self.unet(
                latent,
                torch.cat([t] * copies),
                encoder_hidden_states=context.to(latent),
                added_cond_kwargs={"text_embeds": pooled.to(latent), "time_ids": ids.repeat_interleave(n, 0)},
                return_dict=False,
            )[0].to(x.dtype)
        if copies == 1:
            return out
        uncond, cond = out.chunk(2)
        return uncond + self.options.cfg * (cond - uncond)

    @contextmanager
    def _guided(self, timestep: float, tile: Tile, phase: CanvasPhase | None, device: torch.device) -> Iterator[None]:
        if self.guidance is None:
            yield
            return
        features = self._features(tile, device)
        strength = self.options.strength if timestep in self._active else 0.0
        of_tile = None if phase is None else lambda site, h: phase.at(site, tile, h)
        with guided(self.unet, self.guidance, features, strength, self.exchange, of_tile):
            yield

    def _features(self, tile: Tile, device: torch.device) -> tuple[torch.Tensor, ...]:
        """The LQ features of a tile: a cut of where they rest; those of the whole latent are moved once only."""
        if not tile.whole:
            return tuple(tile.crop(f) for f in self.features)
        if not self._near:
            self._near.extend(f.to(device) for f in self.features)
        return tuple(self._near)

    def _canvas_phase(self, x: torch.Tensor, t: torch.Tensor, tiles: list[Tile]) -> CanvasPhase | None:
        """Phase exchanges over the whole canvas, where they are wanted: the UNet runs up to each site only."""
        guidance, fitting, factor, features = self.guidance, self._fitting, self.factor, self.features
        wanted = self.options.tiling.phase == "canvas" and self.exchange and self.options.strength
        if guidance is None or fitting is None or not wanted or float(t[0]) not in self._active:
            return None
        sites = guidance.spec.sites
        phase = CanvasPhase(
            lambda site: sites[site].scale // factor,
            lambda site, shape: in_turn(features[site], shape[0]),
            done=self.between,
        )

        def reached(tile: Tile) -> torch.Tensor:
            try:
                self._predict(tile, x, t, phase)
            except Reached as here:
                return here.features
            raise PGPError("the UNet never came to where its guidance exchanges phases")

        exchanging = [site for site in range(len(sites)) if guidance.exchanges(site)]
        phase.gather(reached, tiles, fitting.overlap, self.options.tiling.blend, exchanging)
        return phase


@contextmanager
def _in_float32(unet: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """The UNet in float32 for a while; coming back is exact, since float32 holds every half-precision number."""
    try:
        unet.float()
        yield
    finally:
        unet.to(dtype)
