"""A full-size model: FaithDiff, PGP-DiffSR or plain SDXL restores canvases."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ...codecs.vae import VAE
from ...conditioning import entries as conditioning
from ...conditioning.conditioning import Conditioning
from ...errors import PGPError, WrongUsage
from ...files.weights import open_weights
from ...guidance import faithdiff
from ...guidance.fits import other_plan
from ...guidance.lq_tiles import LQTiles
from ...guidance.module import Guidance
from ...images.canvas import pad
from ...images.frames import Frame
from ...images.wrap import MARGIN, Wrap
from ...progress import Progress, Say, Watched
from ...sampling.denoiser import Denoiser
from ...sampling.euler import euler, restore_once
from ...sampling.one_step import Dial, dialled
from ...sampling.options import SampleOptions
from ...unet.lora import Beside
from ..given import Given
from ..recipe import Recipe, decide
from . import loading
from . import loras as sdxl_loras
from .family import FRAME, SDXL, recipe_for, what_is_wrong
from .loading import Prompt

_log = logging.getLogger(__name__)


class SDXLRestorer:
    """A full-size model with everything it needs, in one object.

    Build with :meth:`load`; then :meth:`restore` as often as wanted.
    """

    frame: Frame = FRAME

    def __init__(
        self,
        unet: torch.nn.Module,
        vae: VAE,
        positive: Prompt,
        negative: Prompt | None,
        recipe: Recipe,
        guidance: Guidance | None = None,
        name: str = "",
        prediction: str = "epsilon",
        zero_snr: bool = False,
        semantic: Beside | None = None,
        dial: Dial | None = None,
        spacing: str = "leading",
    ):
        self.unet, self.vae, self.guidance = unet, vae, guidance
        self.positive, self.negative = positive, negative
        self.recipe = recipe
        #: Of the plan, or of the UNet's file.
        self.name = name
        self.prediction, self.zero_snr, self.spacing = prediction, zero_snr, spacing
        #: The second LoRA where the dial takes two predictions, else None.
        self.semantic, self.dial = semantic, dial or Dial()

    @classmethod
    def load(
        cls,
        given: Given,
        device: torch.device | str = "cpu",
        say: Say = _log.warning,
    ) -> SDXLRestorer:
        """Read the parts of a model. Nothing is fetched: what is not on this machine is an error.

        Args:
            given: of whose LoRAs a dial other than merged takes two UNet calls a picture. The default of ``dtype``, of
                the UNet and the alignment, is :func:`pgp_core.restorers.sdxl.loading.default_dtype`.
            say: told in one line what is worth knowing and no error.

        Raises:
            WrongUsage: if what is given does not go together.
            PGPError: if a part is missing, damaged, of another kind, or does not fit the others.
        """
        loading.check_together(given)
        if wrong := what_is_wrong(given):
            raise WrongUsage(wrong)
        dial = Dial(*(1.0 if x is None else x for x in (given.pixel, given.semantic)))
        once = bool(given.one_step)
        dtype: torch.dtype = getattr(torch, given.dtype) if given.dtype else loading.default_dtype(device)
        # What is wrong with the smaller parts is said before the large one is read.
        found = loading.find_unet(given, say)
        shape = found.info.shape
        guidance = None
        if source := given.guidance or _own_guidance(given.model, say):
            guidance = loading.read_guidance(source, shape, device, dtype, say)
            if note := other_plan(guidance.spec, found.info.plan.blocks):
                say(f"{source.name}: {note}")
        else:
            say("no --guidance: the picture comes in through its latent alone")
        said = {"cfg": given.cfg, "prompt": given.prompt, "negative_prompt": given.negative_prompt}
        recipe = decide(recipe_for(once, guidance is not None), said)
        positive, negative = loading.read_prompts(given, recipe, device, say)
        for prompt in (positive, negative):
            if prompt is not None:
                loading.check_prompt(prompt, shape)
        vae = loading.read_vae(given, device)
        unet = found.read(device, dtype)
        timestep = sdxl_loras.merge_loras(unet, given.loras, once, say)
        semantic = None
        if given.semantic_lora is not None:
            if dial.merged:
                sdxl_loras.merge_loras(unet, [given.semantic_lora], once, say)
            else:
                semantic = sdxl_loras.put_beside(unet, given.semantic_lora, say)
        stem = (given.model or given.base or Path(SDXL.name)).stem
        named = found.info.plan.name not in ("full", "pruned")
        return cls(
            unet,
            vae,
            positive,
            negative,
            decide(recipe, {"timestep": timestep if once else None}),
            guidance,
            found.info.plan.name if named else stem,
            found.info.prediction,
            found.info.zero_snr,
            semantic,
            dial,
            found.info.spacing,
        )

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return next(self.unet.parameters()).device

    def parts(self) -> dict[str, torch.nn.Module]:
        """See :meth:`pgp_core.restorers.restorer.Restorer.parts`; text encoders are gone once prompts are encoded."""
        there = {"unet": self.unet, "vae": self.vae.module, "guidance": self.guidance}
        return {name: part for name, part in there.items() if part is not None}

    @torch.inference_mode()
    def restore(
        self, canvas: torch.Tensor, options: SampleOptions | None = None, progress: Progress | None = None
    ) -> torch.Tensor:
        """Restore canvases, see :meth:`pgp_core.restorers.restorer.Restorer.restore`."""
        options = options or self.recipe.options()
        height, width = canvas.shape[-2:]
        lq = pad(canvas, self.vae.factor).float()
        features = () if self.guidance is None else self.guidance.features(lq, tiles=LQTiles(self.device))
        size = (lq.shape[-2], lq.shape[-1])
        positive, negative = self._conditioning(self.positive, size), None
        if self.negative is not None:
            negative = self._conditioning(self.negative, size)
        elif options.cfg != 1:
            raise PGPError(f"CFG {options.cfg:g} needs a negative prompt")
        watched = Watched(progress, 1 if self.recipe.one_step else options.steps)
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
        if self.recipe.timestep is not None:
            pixel = denoiser if self.semantic is None else self.semantic.without(denoiser)
            predict = dialled(pixel, denoiser, self.dial)
            z_h = restore_once(predict, z_l, self.recipe.timestep, watched, self.recipe.rule)
        else:
            how = {"zero_snr": self.zero_snr, "spacing": options.spacing or self.spacing, "margin": margin}
            z_h = euler(denoiser, z_l, self.prediction, options, watched, **how)
        return self.vae.decode(z_h)[..., :height, :width].clamp(0, 1).cpu()

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
