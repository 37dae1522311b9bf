"""MODEL_PATCH: guidance files, and what acts on a MODEL while it is sampled."""

from __future__ import annotations

import logging
import os
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch

from ...pgp_core.errors import GuidanceError
from ...pgp_core.guidance import Guidance, GuidanceSpec
from ...pgp_core.topology import KeyMap
from .files import read

log = logging.getLogger(__name__)


def load_guidance(path: str) -> Any:
    """A MODEL_PATCH (ModelPatcher over :class:`Guidance`) from a guidance file.

    Raises:
        GuidanceError, CheckpointError: if the file does not fit.
    """
    source = os.path.basename(path)
    sd, metadata = read(path)
    spec = GuidanceSpec.from_metadata(metadata, source)
    guidance = Guidance(spec, operations=comfy.ops.manual_cast, device=torch.device("meta"), dtype=torch.float32)
    # float32 on every device: a PEAM is small, and twelve convolutions in a row overflow half precision.
    guidance.load({k: v.to(torch.float32, copy=True) for k, v in sd.items()}, source)
    guidance.eval().requires_grad_(False)
    return comfy.model_patcher.CoreModelPatcher(
        guidance, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
    )


class GuidancePatch:
    """The callable that core runs after each encoder block of a guided MODEL.

    Core finds :meth:`models`, :meth:`to` and :meth:`cleanup` on it: it loads the guidance with the MODEL,
    tells of moves, and ends a run. LQ features are made once a run and kept until it ends.
    """

    def __init__(self, patcher: Any, lq: torch.Tensor, strength: float, sigma_start: float, sigma_end: float):
        self.patcher = patcher
        self.lq = lq
        self.strength = strength
        self.sigma_start, self.sigma_end = sigma_start, sigma_end
        self.blocks = {KeyMap().block_of_site(site.module): i for i, site in enumerate(patcher.model.spec.sites)}
        self.features: tuple[torch.Tensor, ...] | None = None
        #: Size of the canvas, and the device, that the features were made for.
        self.canvas: tuple[int, ...] = ()
        self.device: torch.device | None = None

    def models(self) -> list[Any]:
        """What core must have loaded while this patch runs."""
        return [self.patcher]

    def to(self, where: Any) -> GuidancePatch:
        """Core calls it with devices and with dtypes, even 8-bit ones; only a device means anything here."""
        if isinstance(where, torch.device):
            self.cleanup()
        return self

    def cleanup(self) -> None:
        """End of a run."""
        self.features = None

    @torch.compiler.disable
    def __call__(self, h: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        site = self.blocks.get(tuple(options["block"]))
        if site is None or not self._active(options):
            return h
        chunks = len(options["cond_or_uncond"])
        f = self._features(site, h)[site]
        if f.shape[0] > 1:
            # One picture per latent, for every chunk of cond and uncond that core put together.
            f = comfy.utils.repeat_to_batch_size(f, h.shape[0] // chunks).repeat(chunks, 1, 1, 1)
        # In float32: see load_guidance. The UNet goes on in its own dtype.
        return self.patcher.model.fuse(site, h.float(), f, self.strength).to(h.dtype)

    def _active(self, options: dict[str, Any]) -> bool:
        if self.strength == 0:
            return False
        if self.sigma_start == float("inf") and self.sigma_end == 0:
            return True
        return self.sigma_end <= float(options["sigmas"][0]) <= self.sigma_start

    def _features(self, site: int, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features of every site, made at the first that is reached in a run."""
        scale, need = self.patcher.model.spec.sites[site].scale, tuple(h.shape[-2:])
        if self.features is None or self.device != h.device or not _fits(self.canvas, scale, need):
            lq = self.lq
            if not _fits(lq.shape[-2:], scale, need):
                height, width = (n * scale for n in need)
                log.warning(
                    "Apply PGP-DiffSR: the picture is %d x %d, the latent needs %d x %d; the picture is resized",
                    *(lq.shape[-1], lq.shape[-2], width, height),
                )
                lq = comfy.utils.common_upscale(lq, width, height, "lanczos", "disabled")
            self.features = self.patcher.model.features(lq.to(h.device, torch.float32))
            self.canvas, self.device = tuple(lq.shape[-2:]), h.device
        return self.features


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
    if image.ndim != 4 or image.shape[-1] < 3:
        raise GuidanceError(f"Apply PGP-DiffSR: the image must be RGB, got a tensor of shape {tuple(image.shape)}")
    sampling = model.get_model_object("model_sampling")
    sigma_start = float(sampling.percent_to_sigma(start_percent)) if start_percent > 0 else float("inf")
    sigma_end = float(sampling.percent_to_sigma(end_percent)) if end_percent < 1 else 0.0
    guided = model.clone()
    lq = image[..., :3].movedim(-1, 1).contiguous().float()
    guided.set_model_input_block_patch(GuidancePatch(model_patch, lq, strength, sigma_start, sigma_end))
    return guided


def _channels_after(model: Any, block: int) -> int | None:
    """Channels that leave an encoder block of a MODEL's UNet, or None where there is no such UNet."""
    blocks = getattr(model.model.diffusion_model, "input_blocks", None)
    if blocks is None or block >= len(blocks):
        return None
    layers = [m for m in blocks[block].modules() if getattr(m, "out_channels", None)]
    return layers[-1].out_channels if layers else None
