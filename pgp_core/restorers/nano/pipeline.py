"""Nano on diffusers' backbone: load the bundled files, restore canvases."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from ...codecs import pixel as pixel_codec
from ...conditioning.conditioning import Conditioning
from ...errors import CheckpointError, PGPError
from ...files.checkpoints import read_safetensors
from ...files.json_format import loads
from ...guidance.lq_tiles import LQTiles
from ...guidance.module import Guidance, GuidanceSpec
from ...images.canvas import pad
from ...images.wrap import MARGIN
from ...progress import Progress, Watched
from ...sampling.denoiser import Denoiser
from ...sampling.euler import SampleOptions, euler, restore_once
from ...schedule import PREDICTIONS
from ...unet import lora
from ...unet.on_diffusers import load_unet
from ...unet.plan import PrunePlan
from ...unet.shape import NANO_SHAPE
from . import model as nano


class NanoPipeline:
    """Nano with everything it needs, in one object.

    Build with :meth:`load`; then :meth:`restore` as often as wanted. One-step and multi-step UNets differ by
    the S1 LoRA, merged at load.
    """

    #: See :data:`pgp_core.images.canvas.MULTIPLE`.
    canvas_kind = "pgp-nano"
    #: What the multi-step model starts from.
    start = "noise"

    def __init__(
        self,
        unet: torch.nn.Module,
        guidance: Guidance,
        positive: Conditioning,
        negative: Conditioning,
        one_step: bool,
        cfg: float,
        prediction: str,
        latent_std: float = 0.0,
    ):
        self.unet, self.guidance = unet, guidance
        self.positive, self.negative = positive, negative
        self.one_step = one_step
        #: What it is called where results are listed.
        self.name = "pgp-nano-s1" if one_step else "pgp-nano"
        #: The CFG scale that the multi-step model is meant for.
        self.cfg = cfg
        #: What the UNet outputs, see :func:`pgp_core.schedule.target`.
        self.prediction = prediction
        #: See :func:`pgp_core.schedule.start_gain`.
        self.latent_std = latent_std

    @classmethod
    def load(
        cls,
        one_step: bool = True,
        folder: Path = nano.FOLDER,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> NanoPipeline:
        """Load the bundled files, or others of the same layout.

        Args:
            one_step: merge the S1 LoRA.
            dtype: of the UNet and the LQ adapter.

        Raises:
            CheckpointError, GuidanceError, PlanError: if a file is damaged or does not fit.
        """
        weights, metadata = read_safetensors(folder / nano.UNET_FILE)
        try:
            plan = PrunePlan.from_json(loads(metadata["pgp.plan"]), nano.UNET_FILE)
            about = loads(metadata["pgp.model"])
            cfg, prediction = float(about["cfg"]), str(about["prediction"])
            latent_std = float(about.get("latent_std", 0))
        except PGPError:
            raise
        except Exception as e:
            raise CheckpointError(f"{nano.UNET_FILE} lacks nano's metadata ({e})") from None
        if prediction not in PREDICTIONS:
            raise CheckpointError(f"{nano.UNET_FILE} predicts {prediction!r}, which this release does not know: update")
        unet = load_unet(NANO_SHAPE, plan, {k: v.to(dtype) for k, v in weights.items()}, nano.UNET_FILE).to(device)
        if one_step:
            s1, _ = read_safetensors(folder / nano.S1_FILE)
            lora.merge(unet, s1, source=nano.S1_FILE)
        tensors, metadata = read_safetensors(folder / nano.GUIDANCE_FILE)
        spec = GuidanceSpec.from_metadata(metadata, nano.GUIDANCE_FILE)
        guidance = Guidance(spec, device="meta").load(tensors, nano.GUIDANCE_FILE).to(device, dtype).eval()
        # Twelve convolutions in a row overflow half precision.
        guidance.peam.float()
        contexts, _ = read_safetensors(folder / nano.CONTEXTS_FILE)
        try:
            positive, negative = (
                Conditioning.of_prompt(contexts[f"{k}.context"].float(), contexts[f"{k}.pooled"].float(), nano.TIME_IDS)
                for k in ("positive", "negative")
            )
        except KeyError as e:
            raise CheckpointError(f"{nano.CONTEXTS_FILE} lacks {e}") from None
        return cls(unet, guidance, positive, negative, one_step, cfg, prediction, latent_std)

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return next(self.unet.parameters()).device

    def defaults(self) -> SampleOptions:
        """How it samples where nobody says."""
        return SampleOptions(cfg=1.0 if self.one_step else self.cfg)

    @torch.inference_mode()
    def restore(
        self,
        canvas: torch.Tensor,
        options: SampleOptions | None = None,
        progress: Progress | None = None,
        peam_lq: torch.Tensor | None = None,
        exchange: bool = True,
        peam: bool = True,
        base: bool = True,
    ) -> torch.Tensor:
        """Restore canvases.

        Args:
            canvas: ``(B, 3, H, W)`` RGB in [0, 1], the LQ picture at its final size; any size.
            options: how to sample; by default one CFG-less step for a one-step model, else 20 steps from
                noise at :attr:`cfg`.
            progress: see :data:`pgp_core.progress.Progress`.
            peam_lq, exchange, peam, base: for ablations: another picture for the PEAM alone; PEAM without the
                phase exchange; no PEAM; no LQ added at ``conv_in``.

        Returns:
            ``(B, 3, H, W)`` float32 on the CPU, in [0, 1].

        Raises:
            Cancelled: when ``progress`` returned False.
        """
        options = options or self.defaults()
        weight = next(self.unet.parameters())
        height, width = canvas.shape[-2:]
        lq = pad(canvas, pixel_codec.FACTOR).to(weight.dtype)
        guidance, tiles = self.guidance, LQTiles(self.device)
        features = guidance.features(lq, tiles=tiles)
        peams = [i for i, s in enumerate(guidance.spec.sites) if s.fusion == "peam"]
        if peam_lq is not None:
            other = guidance.features(pad(peam_lq, pixel_codec.FACTOR).to(weight.dtype), tiles=tiles)
            features = tuple(other[i] if i in peams else f for i, f in enumerate(features))
        if not base:
            sites = guidance.spec.sites
            features = tuple(torch.zeros_like(f) if s.is_base else f for f, s in zip(features, sites, strict=True))
        if not peam:
            guidance = _without_peam(guidance)
            features = tuple(f for i, f in enumerate(features) if i not in peams)
        watched = Watched(progress, 1 if self.one_step else options.steps)
        denoiser = Denoiser(
            self.unet,
            guidance,
            features,
            self.positive,
            self.negative,
            options,
            exchange,
            factor=pixel_codec.FACTOR,
            between=watched.between,
        )
        # Latents have as many numbers as the canvas, so none is kept that can be had again.
        if self.one_step:
            z_l = pixel_codec.encode(lq.to(self.device)).mul_(nano.SCALE)
            z_h = restore_once(denoiser, z_l, nano.S1_TIMESTEP, watched).div_(nano.SCALE)
            del z_l
        else:
            # The latent is the residual: the LQ picture's own is zero.
            latent = (lq.shape[0], pixel_codec.CHANNELS, *(n // pixel_codec.FACTOR for n in lq.shape[-2:]))
            zero = lq.new_zeros(1, device=self.device).expand(latent)
            margin = MARGIN // pixel_codec.FACTOR
            residual = euler(denoiser, zero, self.prediction, options, watched, self.latent_std, margin=margin)
            z_h = residual.div_(nano.SCALE).add_(pixel_codec.encode(lq.to(self.device)))
        del denoiser, features
        return pixel_codec.decode(z_h)[..., :height, :width].clamp(0, 1).float().cpu()


def _without_peam(guidance: Guidance) -> Guidance:
    """The same guidance with its PEAM sites left out."""
    sites = tuple(s for s in guidance.spec.sites if s.fusion != "peam")
    twin = Guidance.__new__(Guidance)
    torch.nn.Module.__init__(twin)
    twin.spec = dataclasses.replace(guidance.spec, sites=sites)
    twin.peam = torch.nn.ModuleDict()
    return twin
