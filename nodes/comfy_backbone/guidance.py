"""MODEL_PATCH: guidance files, and what acts on a MODEL while it is sampled."""

from __future__ import annotations

import logging
import os
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.model import normal_attention, vae_attention

from ...pgp_core.checked_pictures import checked_pictures
from ...pgp_core.errors import GuidanceError
from ...pgp_core.guidance import Guidance, GuidanceSpec
from ...pgp_core.guidance_file import read_guidance
from ...pgp_core.lq_encoder import Attention, sliced_attention
from ...pgp_core.lq_tiles import LQTiles
from ...pgp_core.number import number
from ...pgp_core.tiling import Tile
from ...pgp_core.topology import KeyMap
from .files import opened
from .parts import current_part

log = logging.getLogger(__name__)

KEY = "pgp_diffsr"

#: Bytes that core's own VAE encoder takes per pixel and byte of its dtype; FaithDiff's encoder is its trunk.
_ENCODER_BYTES = 1767
#: The same for the LQ adapter, in float32: the unshuffled canvas and a few layers of 320 channels at 1/16.
_ADAPTER_BYTES = 48


def load_guidance(path: str) -> Any:
    """A MODEL_PATCH (ModelPatcher over :class:`Guidance`) from a guidance file, or from FaithDiff's own file.

    Raises:
        GuidanceError, CheckpointError: if the file does not fit.
    """
    source = os.path.basename(path)
    with opened(path) as file:
        spec, sd = read_guidance(file)
    guidance = Guidance(spec, operations=comfy.ops.manual_cast, device=torch.device("meta"), attention=_attention())
    # The dtype of the file: manual_cast gives every layer the dtype of what comes in.
    guidance.load(sd, source)
    guidance.eval().requires_grad_(False)
    return comfy.model_patcher.CoreModelPatcher(
        guidance, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
    )


def _attention() -> Attention:
    """Core's attention for VAEs, or what does the same where core's takes no fewer queries than keys."""
    attention: Attention = vae_attention()
    return sliced_attention if attention is normal_attention else attention


def describe_guidance(model_patch: Any) -> str:
    """What a guidance holds, in one line for its node."""
    spec: GuidanceSpec = model_patch.model.spec
    names = {
        "peam": "PEAM",
        "phase": "phase exchange alone",
        "convs": "PEAM without the phase",
        "add": "additive LQ adapter",
        "alignment": "FaithDiff's alignment",
    }
    parts = ", ".join(f"{names[s.fusion]} after {s.module}" for s in spec.sites)
    size = sum(p.numel() for p in model_patch.model.parameters()) / 1e6
    untrained = "" if spec.trained else ". UNTRAINED: its fresh parts change nothing until they are trained"
    return f"for {spec.base}: {parts}; {size:.1f} M parameters{untrained}"


class GuidancePatch:
    """The callable that core runs after each encoder block of a guided MODEL.

    Core finds :meth:`models`, :meth:`to` and :meth:`cleanup` on it: it loads the guidance with the MODEL,
    tells of moves, and ends a run. LQ features are made once a run, before the MODEL is loaded, and kept until it
    ends.
    """

    def __init__(self, patcher: Any, lq: torch.Tensor, strength: float, sigma_start: float, sigma_end: float):
        self.patcher = patcher
        self.lq = lq
        self.tiles = LQTiles(
            patcher.load_device,
            mm.intermediate_device(),
            say=lambda line: log.warning("Apply PGP-DiffSR: %s", line),
            free=mm.soft_empty_cache,
            done=mm.throw_exception_if_processing_interrupted,
        )
        self.strength = strength
        self.sigma_start, self.sigma_end = sigma_start, sigma_end
        self.names = KeyMap()
        self.blocks = {self.names.block_of_site(site.module): i for i, site in enumerate(patcher.model.spec.sites)}
        self.features: tuple[torch.Tensor, ...] | None = None
        #: Size of the canvas that the features were made for.
        self.canvas: tuple[int, ...] = ()
        #: The same features where they are used; several devices with core's multi-GPU.
        self.moved: dict[torch.device, tuple[torch.Tensor, ...]] = {}
        #: Which latents of the batch are sampled, where that is done a few at a time.
        self.part: tuple[int, int] | None = None

    def models(self) -> list[Any]:
        """What core must have loaded while this patch runs."""
        return [self.patcher]

    def to(self, where: Any) -> GuidancePatch:
        """Core calls it with devices and with dtypes, even 8-bit ones; features follow when they are used."""
        return self

    def cleanup(self) -> None:
        """End of a run."""
        self.features = None
        self.moved = {}

    def prepare(self, executor: Any, noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Core's OUTER_SAMPLE wrapper: features are made while the MODEL need not be on the card yet."""
        # What an interrupted run may have left.
        self.cleanup()
        self.part = current_part()
        if self.strength != 0 and noise.ndim == 4:
            self._make(0, self._positions(0, tuple(noise.shape[-2:])))
        out = executor(noise, *args, **kwargs)
        if isinstance(out, torch.Tensor) and not bool(out.isfinite().all()):
            raise GuidanceError(
                "Apply PGP-DiffSR: what was sampled is not finite: the model overflowed, or its weights, a LoRA or the "
                "conditioning are damaged; PGP-DiffSR Tiling runs what overflows in half precision again in float32"
            )
        return out

    @torch.compiler.disable
    def __call__(self, h: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        site = self.blocks.get(tuple(options["block"]))
        if site is None or not self._active(options):
            return h
        guidance, tile = self.patcher.model, options.get("pgp_tile")
        phased = None
        if "pgp_phase" in options and guidance.exchanges(site):
            phased = options["pgp_phase"].at(site, tile, h.float())
        chunks = len(options["cond_or_uncond"])
        f = self._features(site, h, tile)
        if f.shape[0] > 1:
            # One picture per latent, for every chunk of cond and uncond that core put together.
            f = comfy.utils.repeat_to_batch_size(f, h.shape[0] // chunks).repeat(chunks, 1, 1, 1)
        if guidance.spec.sites[site].fusion == "alignment":
            return guidance.fuse(site, h, f, self.strength)
        # Twelve convolutions in a row overflow half precision; the UNet goes on in its own dtype.
        return guidance.fuse(site, h.float(), f, self.strength, phased=phased).to(h.dtype)

    @property
    def has_alignment(self) -> bool:
        """Whether FaithDiff's alignment is part of it."""
        return "alignment" in self.patcher.model.spec.parts

    def halvings(self, site: int) -> int:
        """How often the latent's size has been halved at a site."""
        return self.names.halvings_before(self.patcher.model.spec.sites[site].module)

    def exchanging(self, options: dict[str, Any]) -> list[int]:
        """Sites at which a call exchanges phases, as the UNet comes to them."""
        if not self._active(options):
            return []
        return [site for _, site in sorted(self.blocks.items()) if self.patcher.model.exchanges(site)]

    def resting_features(self, site: int, need: tuple[int, ...]) -> torch.Tensor:
        """A site's features for ``need`` feature positions of the whole latent, where they rest.

        Returns:
            ``(pictures, C, *need)``.
        """
        if self.features is None or not _fits(self.canvas, self.patcher.model.spec.sites[site].scale, need):
            self._make(site, need)
        assert self.features is not None
        return self.features[site]

    def _active(self, options: dict[str, Any]) -> bool:
        if self.strength == 0:
            return False
        if self.sigma_start == float("inf") and self.sigma_end == 0:
            return True
        return self.sigma_end <= float(options["sigmas"][0]) <= self.sigma_start

    def _features(self, site: int, h: torch.Tensor, tile: Tile | None) -> torch.Tensor:
        """A site's features on h's device."""
        if tile is not None and not tile.whole:
            part = tile.coarser(1 << self.halvings(site))
            if (part.height, part.width) != tuple(h.shape[-2:]):
                raise GuidanceError(
                    f"Apply PGP-DiffSR: within tiles the model's features are {h.shape[-1]} x {h.shape[-2]} where the "
                    f"picture's are {part.width} x {part.height}; leave out what else cuts or scales them"
                )
            # Large canvases stay where they rest.
            return tile.crop(self.resting_features(site, self._positions(site, tile.of))).to(h.device)
        self.resting_features(site, tuple(h.shape[-2:]))
        if h.device not in self.moved:
            self.moved[h.device] = tuple(f.to(h.device) for f in self.features or ())
        return self.moved[h.device][site]

    def _positions(self, site: int, latent: tuple[int, ...]) -> tuple[int, ...]:
        """Feature positions at a site of a whole latent."""
        return tuple(-(-n // 2 ** self.halvings(site)) for n in latent)

    def _pictures(self) -> torch.Tensor:
        """Those for the latents that are sampled."""
        if self.part is None or len(self.lq) == 1:
            return self.lq
        return self.lq[[i % len(self.lq) for i in range(*self.part)]]

    def _make(self, site: int, need: tuple[int, ...]) -> None:
        """Features of every site for ``need`` feature positions at one of them."""
        guidance, lq = self.patcher.model, self._pictures()
        scale = guidance.spec.sites[site].scale
        if not _fits(lq.shape[-2:], scale, need):
            height, width = (n * scale for n in need)
            log.warning(
                "Apply PGP-DiffSR: the picture is %d x %d, the latent needs %d x %d; the picture is resized",
                *(lq.shape[-1], lq.shape[-2], width, height),
            )
            lq = comfy.utils.common_upscale(lq, width, height, "lanczos", "disabled")
        dtype = mm.vae_dtype(self.patcher.load_device, [torch.float16, torch.bfloat16])
        tiles, pixels = self.tiles, lq.shape[-2] * lq.shape[-1]
        encoder = _ENCODER_BYTES * dtype.itemsize if "lq_encoder" in guidance.spec.parts else 0
        memory = encoder * min(pixels, tiles.tile**2) + _ADAPTER_BYTES * min(pixels, tiles.adapter_tile**2)
        mm.load_models_gpu([self.patcher], memory_required=memory)
        # One by one: a tile of 1024 x 1024 takes the encoder 3.5 GB in half precision.
        pictures = [guidance.features(picture[None].float(), dtype, tiles) for picture in lq]
        self.features = tuple(fs[0] if len(fs) == 1 else torch.cat(fs) for fs in zip(*pictures, strict=True))
        if not all(bool(f.isfinite().all()) for f in self.features):
            self.cleanup()
            raise GuidanceError(
                "Apply PGP-DiffSR: the picture's features are not finite, not even in float32; the guidance's file is "
                "damaged"
            )
        self.canvas, self.moved = tuple(lq.shape[-2:]), {}


def _fits(canvas: Any, scale: int, need: tuple[int, ...]) -> bool:
    """Whether a canvas has ``need`` feature positions at ``scale``, rounding up."""
    return all(-(-n // scale) == m for n, m in zip(canvas, need, strict=True))


def apply_guidance(
    model: Any, model_patch: Any, image: torch.Tensor, strength: float, start_percent: float, end_percent: float
) -> Any:
    """A copy of a MODEL with guidance; the MODEL itself is not touched.

    Args:
        image: ``(B, H, W, C)`` in [0, 1], the LQ canvas.

    Raises:
        GuidanceError: if the patch is not ours, is there already, or its channels do not fit.
    """
    guidance = getattr(model_patch, "model", None)
    if not isinstance(guidance, Guidance):
        raise GuidanceError(
            "Apply PGP-DiffSR: this MODEL_PATCH is not PGP-DiffSR guidance; connect one of this pack's loaders"
        )
    for name, value in (("strength", strength), ("start_percent", start_percent), ("end_percent", end_percent)):
        number(value, f"Apply PGP-DiffSR: {name} must be", 0, 1, error=GuidanceError)
    if start_percent > end_percent:
        raise GuidanceError(
            f"Apply PGP-DiffSR: the guidance would end ({end_percent}) before it starts ({start_percent})"
        )
    patches = model.model_options.get("transformer_options", {}).get("patches", {}).get("input_block_patch", [])
    if any(isinstance(p, GuidancePatch) for p in patches):
        raise GuidanceError("Apply PGP-DiffSR: this MODEL is guided already; guide it once, from the unguided MODEL")
    for site in guidance.spec.sites:
        have = _channels_after(model, KeyMap().block_of_site(site.module)[1])
        if have != site.channels:
            raise GuidanceError(
                f"Apply PGP-DiffSR: this guidance is for {guidance.spec.base} ({site.channels} channels at "
                f"{site.module}), the MODEL has {have} there; load guidance that was made for it"
            )
    image = checked_pictures(image, "Apply PGP-DiffSR", log.warning, (3, 4), GuidanceError)
    if not guidance.spec.trained:
        log.warning("Apply PGP-DiffSR: this guidance is untrained; its fresh parts change nothing")
    sampling = model.get_model_object("model_sampling")
    sigma_start = float(sampling.percent_to_sigma(start_percent)) if start_percent > 0 else float("inf")
    sigma_end = float(sampling.percent_to_sigma(end_percent)) if end_percent < 1 else 0.0
    guided = model.clone()
    lq = image[..., :3].movedim(-1, 1).contiguous().float()
    patch = GuidancePatch(model_patch, lq, strength, sigma_start, sigma_end)
    guided.set_model_input_block_patch(patch)
    guided.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY, patch.prepare)
    return guided


def _channels_after(model: Any, block: int) -> int | None:
    """Channels that leave an encoder block of a MODEL's UNet, or None where there is no such UNet."""
    blocks = getattr(model.model.diffusion_model, "input_blocks", None)
    if blocks is None or block >= len(blocks):
        return None
    layers = [m for m in blocks[block].modules() if getattr(m, "out_channels", None)]
    return layers[-1].out_channels if layers else None
