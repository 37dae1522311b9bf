"""Nano: load the bundled files, or others of their layout, and restore canvases."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from ...codecs import pixel as pixel_codec
from ...codecs.decoder import PixelDecoder
from ...codecs.decoder_file import read_decoder
from ...conditioning.conditioning import Conditioning
from ...errors import CheckpointError
from ...files.checkpoints import check_finite, read_safetensors
from ...files.weights import open_weights, read_converted
from ...guidance.lq_tiles import LQTiles
from ...guidance.module import Guidance, GuidanceSpec
from ...images.canvas import pad
from ...images.frames import Frame
from ...images.wrap import MARGIN
from ...progress import Progress, Watched
from ...sampling.denoiser import Denoiser
from ...sampling.euler import euler, restore_once
from ...sampling.options import SampleOptions
from ...unet.inspect import inspect_unet
from ...unet.loading import load_unet
from ...unet.shape import UNetShape
from ..given import Given
from ..recipe import Recipe
from . import model as nano
from .family import NANO
from .natural import merge_s1, natural_default


class NanoRestorer:
    """Nano with everything it needs, in one object.

    Build with :meth:`load`; then :meth:`restore` as often as wanted. One-step and multi-step UNets differ by
    the S1 LoRA, merged at load.

    Args:
        prediction: what the UNet outputs in steps, see :func:`pgp_core.schedule.target`.
        latent_std: see :func:`pgp_core.schedule.start_gain`.
        decoder: redraws what comes out, in float32; None where the pixel shuffle is all.
    """

    frame: Frame = NANO.frame

    def __init__(
        self,
        unet: torch.nn.Module,
        guidance: Guidance,
        positive: Conditioning,
        negative: Conditioning,
        recipe: Recipe,
        prediction: str = nano.PREDICTION,
        latent_std: float = 0.0,
        decoder: PixelDecoder | None = None,
    ):
        self.unet, self.guidance = unet, guidance
        self.positive, self.negative = positive, negative
        self.recipe = recipe
        #: What it is called where results are listed.
        self.name = f"{NANO.name}-s1" if recipe.one_step else NANO.name
        self.prediction = prediction
        self.latent_std = latent_std
        # Named as the children of other models' VAEs are.
        self.vae = torch.nn.ModuleDict({} if decoder is None else {"decoder": decoder})

    @classmethod
    def of(cls, given: Given, device: str | torch.device = "cpu") -> NanoRestorer:
        """What a user gives: the bundled files, or a nano UNet with its other files beside it.

        Raises:
            CheckpointError, GuidanceError, PlanError: if a file is damaged or does not fit.
        """
        once = NANO.prefers_one_step if given.one_step is None else given.one_step
        dtype: torch.dtype = getattr(torch, given.dtype) if given.dtype else torch.float32
        return cls._load(nano.Files.of(given), once, device, dtype, given.natural)

    @classmethod
    def load(
        cls,
        one_step: bool = True,
        folder: Path = nano.FOLDER,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        natural: float | None = None,
    ) -> NanoRestorer:
        """Load the bundled files, or others of the same layout.

        Args:
            one_step: merge the S1 LoRA.
            dtype: of the UNet and the LQ adapter.
            natural: of one step, 0 faithful to 1 natural, see :mod:`.natural`; None as the files say.

        Raises:
            CheckpointError, GuidanceError, PlanError: if a file is damaged or does not fit.
        """
        return cls._load(nano.Files(folder), one_step, device, dtype, natural)

    @classmethod
    def _load(
        cls,
        files: nano.Files,
        one_step: bool,
        device: str | torch.device,
        dtype: torch.dtype,
        natural: float | None = None,
    ) -> NanoRestorer:
        opened = partial(open_weights, files.folder / files.unet)
        with opened() as file:
            info, metadata = inspect_unet(file), dict(file.metadata)
        if info.plan.topology not in NANO.topologies:
            raise CheckpointError(f"{files.unet} is {info.plan.topology}'s UNet, not nano's")
        about = nano.about(metadata, files.unet)
        said = {"natural": natural_default(files)} if one_step else {"cfg": about["cfg"]}
        recipe = NANO.recipe(one_step, said, {"natural": natural} if one_step else {})
        names = {k: info.diffusers(k) for k in info.keys}
        unet = load_unet(info.shape, info.plan, read_converted(opened, names, device, dtype), files.unet)
        if one_step:
            merge_s1(unet, files, recipe.natural)
        tensors, metadata = read_safetensors(files.folder / files.guidance)
        spec = GuidanceSpec.from_metadata(metadata, files.guidance)
        guidance = Guidance(spec, device="meta").load(tensors, files.guidance).to(device, dtype).eval()
        # Twelve convolutions in a row overflow half precision.
        guidance.peam.float()
        positive, negative = _contexts(files, info.shape)
        decoder = None if files.decoder_path is None else read_decoder(files.decoder_path).to(device)
        return cls(unet, guidance, positive, negative, recipe, about["prediction"], about["latent_std"], decoder)

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return next(self.unet.parameters()).device

    @property
    def decoder(self) -> PixelDecoder | None:
        """What redraws the pictures that come out, if anything does."""
        return next((m for m in self.vae.values() if isinstance(m, PixelDecoder)), None)

    def parts(self) -> dict[str, torch.nn.Module]:
        """See :meth:`pgp_core.restorers.restorer.Restorer.parts`; a codec without a decoder has no weights."""
        vae: dict[str, torch.nn.Module] = {"vae": self.vae} if self.vae else {}
        return {"unet": self.unet, **vae, "guidance": self.guidance}

    @torch.inference_mode()
    def restore(
        self, canvas: torch.Tensor, options: SampleOptions | None = None, progress: Progress | None = None
    ) -> torch.Tensor:
        """Restore canvases, see :meth:`pgp_core.restorers.restorer.Restorer.restore`."""
        options = options or self.recipe.options()
        weight = next(self.unet.parameters())
        height, width = canvas.shape[-2:]
        lq = pad(canvas, pixel_codec.FACTOR).to(weight.dtype)
        features = self.guidance.features(lq, tiles=LQTiles(self.device))
        watched = Watched(progress, 1 if self.recipe.one_step else options.steps)
        denoiser = Denoiser(
            self.unet,
            self.guidance,
            features,
            self.positive,
            self.negative,
            options,
            factor=pixel_codec.FACTOR,
            between=watched.between,
        )
        # Latents have as many numbers as the canvas, so none is kept that can be had again.
        if self.recipe.timestep is not None:
            z_l = pixel_codec.encode(lq.to(self.device)).mul_(nano.SCALE)
            z_h = restore_once(denoiser, z_l, self.recipe.timestep, watched, self.recipe.rule).div_(nano.SCALE)
            del z_l
        else:
            # The latent is the residual: the LQ picture's own is zero.
            latent = (lq.shape[0], pixel_codec.CHANNELS, *(n // pixel_codec.FACTOR for n in lq.shape[-2:]))
            zero = lq.new_zeros(1, device=self.device).expand(latent)
            margin = MARGIN // pixel_codec.FACTOR
            spacing = options.spacing or "leading"
            residual = euler(
                denoiser, zero, self.prediction, options, watched, self.latent_std, spacing=spacing, margin=margin
            )
            z_h = residual.div_(nano.SCALE).add_(pixel_codec.encode(lq.to(self.device)))
        del denoiser, features
        redrawn = None if self.decoder is None else self.decoder.drawn
        return pixel_codec.decode(z_h, redrawn)[..., :height, :width].clamp(0, 1).float().cpu()


def _contexts(files: nano.Files, shape: UNetShape) -> list[Conditioning]:
    """The positive and the negative prompt.

    Raises:
        CheckpointError: if a tensor is missing, has another width, or is no number.
    """
    contexts, _ = read_safetensors(files.folder / files.contexts)
    found = []
    for kind in ("positive", "negative"):
        try:
            tokens, pooled = (contexts[f"{kind}.{part}"].float() for part in ("context", "pooled"))
        except KeyError as e:
            raise CheckpointError(f"{files.contexts} lacks {e}") from None
        wanted = ((1, tokens.shape[1] if tokens.dim() == 3 else 1, shape.context_dim), (1, shape.pooled_dim))
        if (tuple(tokens.shape), tuple(pooled.shape)) != wanted:
            raise CheckpointError(
                f"{files.contexts} does not fit: its {kind} prompt has shapes {tuple(tokens.shape)} and "
                f"{tuple(pooled.shape)}, expected {wanted[0]} and {wanted[1]}"
            )
        found.append(Conditioning.of_prompt(tokens, pooled, nano.TIME_IDS))
    check_finite(contexts, files.contexts)
    return found
