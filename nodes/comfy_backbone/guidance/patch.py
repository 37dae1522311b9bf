"""What acts on a guided MODEL while it is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor

from ....pgp_core.errors import GuidanceError
from ....pgp_core.guidance.acting import ActiveRange, act
from ....pgp_core.guidance.whole_phase import CanvasPhase
from ....pgp_core.unet.topology import KeyMap
from ..current_tile import current_phase, current_tile
from ..parts import current_part
from ..places import Piece, current_call
from .features import GuidancePatcher, LQFeatures


@dataclass(frozen=True)
class _Run:
    """What is known while a sampler runs.

    Attributes:
        latent: height and width of the latent.
        pictures: those of its latents, or one for all.
        active: noise levels at which the guidance acts.
    """

    latent: tuple[int, int]
    pictures: torch.Tensor
    active: ActiveRange


class GuidancePatch:
    """The callable that core runs after each encoder block of a guided MODEL.

    Core finds :meth:`models`, :meth:`to` and :meth:`cleanup` on it: it loads the guidance with the MODEL,
    tells of moves, and ends a run. LQ features are made once a run, before the MODEL is loaded, and kept until it
    ends.

    Args:
        patcher: core's, of the :class:`Guidance`.
        lq: ``(B, 3, H, W)`` in [0, 1].
        strength: see :meth:`Guidance.fuse`.
        start_percent, end_percent: of the sampling, 0 to 1, in which it acts.
        names: of the MODEL's UNet.
    """

    def __init__(
        self,
        patcher: GuidancePatcher,
        lq: torch.Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
        names: KeyMap,
    ):
        self.patcher = patcher
        self.lq = lq
        self._features = LQFeatures(patcher, lq)
        self.strength = strength
        self.start_percent, self.end_percent = start_percent, end_percent
        self.blocks = {names.block_of_site(site.module): i for i, site in enumerate(patcher.model.spec.sites)}
        self._run: _Run | None = None
        self._running = 0

    @property
    def features(self) -> tuple[torch.Tensor, ...] | None:
        """Of each site, where they rest; None where none have been made."""
        return self._features.made

    def models(self) -> list[GuidancePatcher]:
        """What core must have loaded while this patch runs."""
        return [self.patcher]

    def to(self, where: Any) -> GuidancePatch:
        """Core calls it with devices and with dtypes, even 8-bit ones; features follow when they are used."""
        return self

    def cleanup(self) -> None:
        """End of a run."""
        self._features.clear()

    def prepare(self, executor: WrapperExecutor, noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Core's OUTER_SAMPLE wrapper: what a run needs is made while the MODEL need not be on the card yet.

        Raises:
            GuidanceError: if the pictures are not those of the latents.
        """
        # What an interrupted run may have left.
        self.cleanup()
        before, self._run = self._run, None
        self._running += 1
        try:
            if self.strength != 0 and noise.ndim == 4:
                self._run = self._begin(noise, executor.class_obj.model_patcher)
            return _finite(executor(noise, *args, **kwargs))
        finally:
            self._running -= 1
            self._run = before
            self.cleanup()
            if before is not None:
                # This run was one within another.
                self._features.about(before.pictures, before.latent)

    def started(self, *_: Any) -> None:
        """Core's ON_PRE_RUN callback, which it runs for a MODEL that is not the guider's own, too."""
        if self.strength != 0 and not self._running:
            raise GuidanceError(
                "Apply PGP-DiffSR: a guided MODEL is used beside the one that is sampled, where core applies no "
                "patches; in Dual Model CFG Guider, guide model and leave model_negative unguided"
            )

    def entered(self, executor: WrapperExecutor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Core's APPLY_MODEL wrapper: nothing that is not known here may have cut the latent."""
        options = args[4] if len(args) > 4 else kwargs.get("transformer_options", {})
        if x.ndim == 4 and self._run is not None and "cond_or_uncond" in options and self._active(options):
            for piece in self._pieces(options) or ():
                if (piece.height, piece.width) != tuple(x.shape[-2:]):
                    raise _cut((x.shape[-2], x.shape[-1]), (piece.height, piece.width))
        return executor(x, *args, **kwargs)

    @torch.compiler.disable
    def __call__(self, h: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        site = self.blocks.get(tuple(options["block"]))
        if site is None or not self._active(options):
            return h
        tile, phase = current_tile(), current_phase()
        of_tile = None if tile is None or phase is None else lambda h: phase.at(site, tile, h)
        rows = partial(self.rows, site, tuple(h.shape), options, h.device)
        return act(self.patcher.model, site, h, rows, self.strength, phase=of_tile)

    @property
    def has_alignment(self) -> bool:
        """Whether FaithDiff's alignment is part of it."""
        return "alignment" in self.patcher.model.spec.parts

    def halvings(self, site: int) -> int:
        """How often the latent's size has been halved at a site."""
        return self._features.halvings(site)

    def canvas_phase(self, options: dict[str, Any], who: str) -> CanvasPhase:
        """For a call of the whole latent, whose ``transformer_options`` these are."""
        return CanvasPhase(
            lambda site: 1 << self.halvings(site),
            lambda site, shape: self.rows(site, shape, options),
            mm.intermediate_device(),
            who=who,
        )

    def exchanging(self, options: dict[str, Any]) -> list[int]:
        """Sites at which a call exchanges phases, as the UNet comes to them."""
        if not self._active(options):
            return []
        return [site for _, site in sorted(self.blocks.items()) if self.patcher.model.exchanges(site)]

    def rows(
        self, site: int, shape: tuple[int, ...], options: dict[str, Any], device: torch.device | None = None
    ) -> list[torch.Tensor]:
        """What each entry of a batch of UNet features meets at a site.

        Args:
            shape: of the UNet's features, ``(B, C, H, W)``.
            options: ``transformer_options`` of the call.
            device: where whole pictures' features are kept; pieces stay where they rest, as all do where it is None.

        Returns:
            B views ``(C, H, W)``; the same object for entries that meet the same.

        Raises:
            GuidanceError: if it is not known which picture, or which part of it, belongs to an entry.
        """
        size, chunks = (shape[-2], shape[-1]), len(options["cond_or_uncond"])
        pieces = self._pieces(options)
        by_piece: dict[Piece | None, list[torch.Tensor]] = {}
        rows: list[torch.Tensor] = []
        for piece in [None] * chunks if pieces is None else pieces:
            if piece not in by_piece:
                by_piece[piece] = list(self._of_piece(site, size, piece, options, device))
            rows += self._of_latents(by_piece[piece], shape[0] // chunks, options)
        return rows

    def areas(self, options: dict[str, Any]) -> list[Piece] | None:
        """Where in the latent the chunks of a call lie, tiles aside; None where nothing is known of it.

        Raises:
            GuidanceError: if something unknown rearranged them.
        """
        whole = self._whole(options)
        return None if whole is None else self._areas(options, whole)

    def _begin(self, noise: torch.Tensor, model: ModelPatcher) -> _Run:
        latents, latent = noise.shape[0], (noise.shape[-2], noise.shape[-1])
        part, lq = current_part(latents), self.lq
        if len(lq) not in (1, part.total):
            raise GuidanceError(
                f"Apply PGP-DiffSR: {len(lq)} pictures cannot guide {part.total} latents, since nothing says which "
                "belongs to which; connect one picture per latent in the latents' order (Image From Batch, Repeat "
                "Image Batch and Rebatch Images do what their namesakes do to latents), or one for all"
            )
        pictures = lq if len(lq) == 1 else lq[part.numbers]
        self._features.about(pictures, latent)
        self._features.whole(0, self._features.positions(0, latent), make_room=True)
        # Of the MODEL that is sampled, whatever was done to its schedule since it was guided.
        sampling = model.get_model_object("model_sampling")
        active = ActiveRange.of(
            self.start_percent, self.end_percent, lambda share: float(sampling.percent_to_sigma(share))
        )
        return _Run(latent, pictures, active)

    def _active(self, options: dict[str, Any]) -> bool:
        if self.strength == 0:
            return False
        if self._run is None or self._run.active.always:
            return True
        return float(options["sigmas"][0]) in self._run.active

    def _pieces(self, options: dict[str, Any]) -> list[Piece] | None:
        """Where in the latent the chunks of a call lie; None where nothing is known of it."""
        tile = current_tile()
        whole = self._whole(options)
        if whole is None:
            return None
        areas = self._areas(options, whole)
        if tile is None:
            return areas
        for area in areas:
            if tile.of != (area.height, area.width):
                raise _cut(tile.of, (area.height, area.width))
        return [area.tile(tile) for area in areas]

    def _whole(self, options: dict[str, Any]) -> tuple[int, int] | None:
        """Height and width of the latent that is sampled."""
        if self._run is not None:
            return self._run.latent
        tile = current_tile()
        return None if tile is None else tile.of

    def _areas(self, options: dict[str, Any], whole: tuple[int, int]) -> list[Piece]:
        """Where a call's chunks lie, tiles aside."""
        call, chunks = current_call(), len(options["cond_or_uncond"])
        if call is None:
            return [Piece(0, 0, *whole)] * chunks
        if not call.slides and call.size != whole:
            raise _cut(call.size, whole)
        areas = call.pieces(options.get("uuids", ()))
        known = [area.within(*call.origin) for area in areas if area is not None and call.origin is not None]
        if len(known) != chunks:
            raise GuidanceError(
                "Apply PGP-DiffSR: which part of the picture a call of the model is for is not known; leave out "
                "context windows over height or width that skip positions, and what else rearranges conditionings"
            )
        return known

    def _of_piece(
        self, site: int, size: tuple[int, int], piece: Piece | None, options: dict[str, Any], device: Any
    ) -> torch.Tensor:
        """Of all pictures, what meets UNet features of a height and width."""
        whole = self._whole(options)
        if piece is None or whole is None or (piece.height, piece.width) == whole:
            # Where the size is another, Deep Shrink or its kin made features of the whole coarser.
            return self._features.whole(site, size, device)
        expected = self._features.positions(site, (piece.height, piece.width))
        if size != expected:
            raise GuidanceError(
                f"Apply PGP-DiffSR: within a part of the picture the model's features are {size[1]} x {size[0]} where "
                f"the picture's are {expected[1]} x {expected[0]}; leave out what else cuts or scales them"
            )
        return self._features.piece(site, piece, whole)

    def _of_latents(self, pictures: list[torch.Tensor], latents: int, options: dict[str, Any]) -> list[torch.Tensor]:
        """One picture's features per latent of a chunk."""
        if len(pictures) == 1:
            return pictures * latents
        call = current_call()
        numbers = range(len(pictures)) if call is None or call.latents is None else call.latents
        if len(numbers) != latents:
            raise GuidanceError(
                f"Apply PGP-DiffSR: the model is called for {latents} latents where {len(numbers)} pictures guide "
                "them; leave out what else divides the batch, and use frames of PGP-DiffSR Tiling"
            )
        return [pictures[n] for n in numbers]


def guidance_in(options: dict[str, Any]) -> GuidancePatch | None:
    """The guidance among a MODEL's, or a call's, ``transformer_options``; there is one at most."""
    patches = options.get("patches", {}).get("input_block_patch", [])
    return next((p for p in patches if isinstance(p, GuidancePatch)), None)


def _cut(called: tuple[int, int], sampled: tuple[int, int]) -> GuidanceError:
    return GuidanceError(
        f"Apply PGP-DiffSR: the model is called for {called[1]} x {called[0]} latent positions where {sampled[1]} x "
        f"{sampled[0]} are sampled; leave out what else cuts the latent, and use PGP-DiffSR Tiling"
    )


def _finite(sampled: Any) -> Any:
    """What a run gave, which as a picture would be black where it is no number."""
    if isinstance(sampled, torch.Tensor) and not bool(sampled.isfinite().all()):
        raise GuidanceError(
            "Apply PGP-DiffSR: what was sampled is not finite: the model overflowed, or its weights, a LoRA or the "
            "conditioning are damaged; PGP-DiffSR Tiling runs what overflows in half precision again in float32"
        )
    return sampled
