"""A full-size model on diffusers' backbone: FaithDiff, PGP-DiffSR or plain SDXL restores canvases."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ...codecs.vae import VAE
from ...conditioning import entries as conditioning
from ...conditioning.conditioning import Conditioning
from ...errors import PGPError
from ...files.weights import open_weights
from ...guidance import faithdiff
from ...guidance.fits import other_plan
from ...guidance.lq_tiles import LQTiles
from ...guidance.module import Guidance
from ...images.canvas import pad
from ...images.wrap import MARGIN, Wrap
from ...progress import Progress, Say, Watched
from ...sampling.denoiser import Denoiser
from ...sampling.euler import SampleOptions, euler, restore_once
from ...sampling.one_step import Dial, dialled
from ...unet.lora import Beside
from . import loading as sdxl_loading
from . import loras as sdxl_loras
from .loading import Files, Prompt

_log = logging.getLogger(__name__)


class SDXLPipeline:
    """A full-size model with everything it needs, in one object.

    Build with :meth:`load`; then :meth:`restore` as often as wanted.
    """

    #: See :data:`pgp_core.images.canvas.MULTIPLE`.
    canvas_kind = "sdxl"
    #: FaithDiff's.
    cfg = 5.0

    def __init__(
        self,
        unet: torch.nn.Module,
        vae: VAE,
        positive: Prompt,
        negative: Prompt | None,
        guidance: Guidance | None = None,
        name: str = "sdxl",
        prediction: str = "epsilon",
        zero_snr: bool = False,
        s1_timestep: int | None = None,
        semantic: Beside | None = None,
        dial: Dial | None = None,
        spacing: str = "leading",
    ):
        self.unet, self.vae, self.guidance = unet, vae, guidance
        self.positive, self.negative = positive, negative
        #: Of the plan, or of the UNet's file.
        self.name = name
        self.prediction, self.zero_snr, self.spacing = prediction, zero_snr, spacing
        #: At which the model works in one step; None for Euler's steps.
        self.s1_timestep = s1_timestep
        #: The second LoRA where the dial takes two predictions, else None.
        self.semantic, self.dial = semantic, dial or Dial()

    @classmethod
    def load(
        cls,
        files: Files,
        one_step: bool = False,
        cfg: float | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        say: Say = _log.warning,
        dial: Dial | None = None,
    ) -> SDXLPipeline:
        """Read the parts of a model. Nothing is fetched: what is not on this machine is an error.

        Args:
            one_step: for one UNet call, which takes an S1 LoRA among the files.
            cfg: with which it will be used, by default 5 and in one step 1; 1 needs no negative prompt.
            dtype: of the UNet and the alignment; by default :func:`pgp_core.restorers.sdxl.loading.default_dtype`.
            say: told in one line what is worth knowing and no error.
            dial: of the files' LoRAs and their semantic one; other than merged, each picture takes two UNet calls.

        Raises:
            PGPError: if a part is missing, damaged, of another kind, or does not fit the others.
        """
        sdxl_loading.check_together(files)
        if one_step and not files.loras:
            raise PGPError("a full-size model works in one step with an S1 LoRA only: give one with --lora")
        if not one_step and files.semantic_lora:
            raise PGPError("--semantic-lora is for one step: use --one-step, or leave it out")
        dial = dial or Dial()
        cfg = (1.0 if one_step else cls.cfg) if cfg is None else cfg
        dtype = dtype or sdxl_loading.default_dtype(device)
        # What is wrong with the smaller parts is said before the large one is read.
        found = sdxl_loading.find_unet(files, say)
        shape = found.info.shape
        guidance = None
        if source := files.guidance or _own_guidance(files.model, say):
            guidance = sdxl_loading.read_guidance(source, shape, device, dtype, say)
            if note := other_plan(guidance.spec, found.info.plan.blocks):
                say(f"{source.name}: {note}")
        else:
            say("no --guidance: the picture comes in through its latent alone")
        positive, negative = sdxl_loading.read_prompts(files, cfg != 1, device, say)
        for prompt in (positive, negative):
            if prompt is not None:
                sdxl_loading.check_prompt(prompt, shape)
        vae = sdxl_loading.read_vae(files, device)
        unet = found.read(device, dtype)
        timestep = sdxl_loras.merge_loras(unet, files.loras, one_step, say)
        semantic = None
        if files.semantic_lora is not None:
            if dial.merged:
                sdxl_loras.merge_loras(unet, [files.semantic_lora], one_step, say)
            else:
                semantic = sdxl_loras.put_beside(unet, files.semantic_lora, say)
        stem = (files.model or files.sdxl or Path("sdxl")).stem
        named = found.info.plan.name not in ("full", "pruned")
        return cls(
            unet,
            vae,
            positive,
            negative,
            guidance,
            found.info.plan.name if named else stem,
            found.info.prediction,
            found.info.zero_snr,
            timestep if one_step else None,
            semantic,
            dial,
            found.info.spacing,
        )

    @property
    def start(self) -> str:
        """What sampling starts from by default: FaithDiff's way with guidance, else the picture's latent."""
        return "lq" if self.guidance is None else "lr"

    @property
    def one_step(self) -> bool:
        """Whether it works in one UNet call."""
        return self.s1_timestep is not None

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return next(self.unet.parameters()).device

    @torch.inference_mode()
    def restore(
        self, canvas: torch.Tensor, options: SampleOptions | None = None, progress: Progress | None = None
    ) -> torch.Tensor:
        """Restore canvases.

        Args:
            canvas: ``(B, 3, H, W)`` RGB in [0, 1], the LQ picture at its final size; any size, memory permitting.
            options: how to sample; by default 20 steps with CFG 5 from :attr:`start`.
            progress: see :data:`pgp_core.progress.Progress`.

        Returns:
            ``(B, 3, H, W)`` float32 on the CPU, in [0, 1].

        Raises:
            PGPError: if numbers overflow, in float32 too.
            Cancelled: when ``progress`` returned False.
        """
        options = options or self.defaults()
        height, width = canvas.shape[-2:]
        lq = pad(canvas, self.vae.factor).float()
        features = () if self.guidance is None else self.guidance.features(lq, tiles=LQTiles(self.device))
        size = (lq.shape[-2], lq.shape[-1])
        positive, negative = self._conditioning(self.positive, size), None
        if self.negative is not None:
            negative = self._conditioning(self.negative, size)
        elif options.cfg != 1:
            raise PGPError(f"CFG {options.cfg:g} needs a negative prompt")
        watched = Watched(progress, 1 if self.one_step else options.steps)
        denoiser = Denoiser(
            self.unet,
            self.guidance,
            features,
            positive,
            negative,
            options,
            factor=self.vae.factor,
            between=watched.between,
        )
        # Sampled in float32: only the UNet itself runs in its dtype.
        margin = MARGIN // self.vae.factor
        # The VAE's own borders are in the margins.
        z_l = Wrap(options.wrap).repeated(self.vae.encode(lq), margin)
        if self.s1_timestep is not None:
            pixel = denoiser if self.semantic is None else self.semantic.without(denoiser)
            z_h = restore_once(dialled(pixel, denoiser, self.dial), z_l, self.s1_timestep, watched)
        else:
            how = {"zero_snr": self.zero_snr, "spacing": self.spacing, "margin": margin}
            z_h = euler(denoiser, z_l, self.prediction, options, watched, **how)
        return self.vae.decode(z_h)[..., :height, :width].clamp(0, 1).cpu()

    def defaults(self) -> SampleOptions:
        """How it samples where nobody says."""
        if self.one_step or self.negative is None:
            return SampleOptions(cfg=1.0, start=self.start)
        return SampleOptions(cfg=self.cfg, start=self.start, denoise=0.5 if self.start == "lq" else 1.0)

    def _conditioning(self, prompt: Prompt, size: tuple[int, int]) -> Conditioning:
        """On the UNet's device; SDXL's sizes are the canvas's, where a file says no others."""
        made = conditioning.to_sampling(prompt.entries, size, prompt.source)
        return Conditioning(
            made.context.to(self.device, torch.float32), made.pooled.to(self.device, torch.float32), made.time_ids
        )


def _own_guidance(model: Path | None, say: Say) -> Path | None:
    """The UNet's own file, if it is FaithDiff's."""
    if model is None:
        return None
    with open_weights(model) as file:
        if not faithdiff.is_faithdiff(file.shapes):
            return None
    say(f"{model.name} holds its own guidance, which is used")
    return model
