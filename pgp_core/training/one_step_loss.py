"""S1: one UNet call, ``z_H = z_L - UNet(z_L, t)``, and how far its result is from HQ (the paper's Section 3.3)."""

from __future__ import annotations

import torch

from ..errors import PGPError
from .csd import CSD
from .haar_details import haar_details
from .perceptual import Perceptual
from .s1_config import S1LossConfig
from .subject import Batch, Subject


class S1Loss(torch.nn.Module):
    """The weighted sum of its terms; build with :func:`make_s1_loss`.

    Called as ``loss(subject, batch, generator)``, with a batch on the subject's device; all randomness comes from
    the generator, which is on the CPU. ``.to(device)`` moves the score model and the perceptual measure.
    """

    def __init__(self, config: S1LossConfig, perceptual: Perceptual | None = None, csd: CSD | None = None):
        super().__init__()
        self.config = config.resolved()
        self.perceptual, self.csd = perceptual, csd
        self._terms: dict[str, torch.Tensor] = {}

    @property
    def terms(self) -> dict[str, float]:
        """Each term of the last call, not weighted: ``l1``, ``l2``, ``edges``, ``perceptual``, ``csd``."""
        return {name: float(value) for name, value in self._terms.items()}

    def forward(self, subject: Subject, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """The loss, a float32 scalar."""
        c, n = self.config, len(batch)
        # Models that accelerate wraps for several devices hold the subject in `module`.
        inner: Subject = getattr(subject, "module", subject)
        z_lq = inner.encode(batch.lq)
        t = torch.full((n,), inner.s1_timestep if c.timestep is None else c.timestep, device=z_lq.device)
        positive = torch.ones(n, dtype=torch.bool)
        if c.null_prompt and not inner.negatives:
            positive = torch.rand(n, generator=generator) >= c.null_prompt
        conditioning = inner.conditioning(batch, positive.to(z_lq.device))
        z = z_lq - subject(z_lq, t, batch.lq, conditioning)
        terms = self._pixel_terms(z, batch, inner, generator)
        if self.csd is not None:
            terms["csd"] = self.csd(z_lq, z, batch, generator)
        self._terms = {name: value.detach() for name, value in terms.items()}
        return torch.stack([getattr(c, name) * value for name, value in terms.items()]).sum()

    def _pixel_terms(
        self, z: torch.Tensor, batch: Batch, subject: Subject, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """What compares with HQ. A latent is decoded only where a term needs it."""
        c = self.config
        terms: dict[str, torch.Tensor] = {}
        seen = (c.space == "picture" and (c.l1 or c.l2)) or c.edges or self.perceptual is not None
        picture = subject.decode(z).float() if seen else None
        # Pictures in [-1, 1], as the published weights have them.
        error = None if picture is None else 2 * (picture - batch.hq)
        if c.l1 or c.l2:
            apart = error if c.space == "picture" and error is not None else z - subject.encode(batch.hq)
            if c.l1:
                terms["l1"] = apart.abs().mean()
            if c.l2:
                terms["l2"] = apart.square().mean()
        if c.edges and error is not None:
            terms["edges"] = torch.stack([d.abs().mean() for d in haar_details(error)]).sum()
        if self.perceptual is not None and picture is not None:
            terms["perceptual"] = self.perceptual(picture, batch.hq, generator).mean()
        return terms


def make_s1_loss(config: S1LossConfig, subject: Subject, score: Subject | None = None) -> S1Loss:
    """The loss that a configuration asks for, on the subject's device.

    Args:
        subject: what will be trained.
        score: CSD's frozen model, over the subject's latents; it is put in evaluation and loses its gradients.

    Raises:
        PGPError: if CSD has a weight and there is no score model, or that is the subject itself; if the perceptual
            measure's library or weights are missing.
    """
    c = config.resolved()
    csd = None
    if c.csd:
        if score is None:
            raise PGPError(
                f"csd has the weight {c.csd:g} but there is no score model: name the unpruned model, or set csd to 0"
            )
        if score is subject or score.unet is subject.unet:
            raise PGPError("the score model of csd must be another model than the one that is trained")
        csd = CSD(score, c.csd_guidance, (round(c.csd_from * 1000), round(c.csd_to * 1000)))  # type: ignore[arg-type,operator]
    perceptual = Perceptual(c.measure, str(c.vgg or "")) if c.perceptual else None  # type: ignore[arg-type]
    device = next(subject.unet.parameters()).device
    return S1Loss(c, perceptual, csd).to(device)
