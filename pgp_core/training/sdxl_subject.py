"""A full-size model in training: SDXL's latents, captions and sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..codecs.vae import VAE
from ..conditioning import entries as conditioning
from ..conditioning.conditioning import Conditioning
from ..guidance.module import Guidance
from ..restorers.sdxl.family import S1_TIMESTEP
from ..restorers.sdxl.loading import Prompt
from .subject import Batch, Subject

#: ``prompts(captions, positive)``: contexts ``(B, tokens, width)`` and pooled vectors ``(B, width)``, on the CPU.
Prompts = Callable[[Sequence[str], Sequence[bool]], tuple[torch.Tensor, torch.Tensor]]


class Captions:
    """Each picture's caption through SDXL's text encoders.

    Args:
        encode: one text to context ``(1, tokens, width)`` and pooled ``(1, width)``.
        empty: text for pictures without a caption.
        negative: text where a prompt is dropped.
    """

    def __init__(self, encode: Callable[[str], tuple[torch.Tensor, torch.Tensor]], empty: str = "", negative: str = ""):
        self.encode, self.empty, self.negative = encode, empty, negative

    def __call__(self, captions: Sequence[str], positive: Sequence[bool]) -> tuple[torch.Tensor, torch.Tensor]:
        """See :data:`Prompts`."""
        texts = [(c or self.empty) if p else self.negative for c, p in zip(captions, positive, strict=True)]
        found = [self.encode(text) for text in texts]
        return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])


class SavedPrompts:
    """One prompt for all pictures, and one for where it is dropped, from files; captions are not read."""

    def __init__(self, positive: Prompt, negative: Prompt):
        made = [conditioning.to_sampling(p.entries, (8, 8), p.source) for p in (negative, positive)]
        tokens = max(m.context.shape[1] for m in made)
        # Attention over a repeated prompt is the same; all of SDXL's lengths are multiples of 77.
        self.context = torch.cat([m.context.float().repeat(1, -(-tokens // m.context.shape[1]), 1) for m in made])
        self.pooled = torch.cat([m.pooled.float() for m in made])

    def __call__(self, captions: Sequence[str], positive: Sequence[bool]) -> tuple[torch.Tensor, torch.Tensor]:
        """See :data:`Prompts`."""
        index = torch.tensor([int(p) for p in positive])
        return self.context[index], self.pooled[index]


class SDXLSubject(Subject):
    """An SDXL-shaped UNet with guidance in place; the VAE and what makes prompts are frozen, and not saved with it."""

    negatives = False

    def __init__(
        self,
        unet: torch.nn.Module,
        guidance: Guidance | None,
        vae: VAE | None,
        prompts: Prompts | None,
        prediction: str = "epsilon",
        s1_timestep: int = S1_TIMESTEP,
    ):
        super().__init__()
        self.unet, self.guidance = unet, guidance
        self.vae, self.prompts = vae, prompts
        self.prediction, self.s1_timestep = prediction, s1_timestep

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Scaled latents, the distribution's mode, in float32 whatever the autocast."""
        assert self.vae is not None
        with torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
            return self.vae.encode(pictures)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Pictures, in float32 whatever the autocast."""
        assert self.vae is not None
        with torch.autocast(z.device.type, enabled=False):
            return self.vae.decode(z)

    def denoised(self, z_lq: torch.Tensor, z_hq: torch.Tensor) -> torch.Tensor:
        """HQ's whole latent, as in the paper."""
        return z_hq

    def conditioning(self, batch: Batch, positive: torch.Tensor) -> Conditioning:
        """Prompts, and SDXL's sizes in pixels: the picture's, the crop's corner, the crop's own."""
        assert self.prompts is not None
        context, pooled = self.prompts(batch.captions, positive.tolist())
        device = batch.lq.device
        target = torch.tensor(batch.hq.shape[-2:], device=device).expand(len(batch), -1)
        ids = torch.cat((batch.original.to(device), batch.corner.to(device), target), 1).float()
        return Conditioning(context.to(device), pooled.to(device), ids)
