"""S1: one UNet call, ``z_H = z_L - UNet(z_L, t)``, and how far its result is from HQ (the paper's Section 3.3)."""

from __future__ import annotations

import torch

from ..errors import PGPError
from .adversarial.adversary import Adversary
from .adversarial.shifted import moved_batch, shifted
from .csd import CSD
from .haar_details import haar_details
from .perceptual import Perceptual
from .s1_config import S1LossConfig
from .subject import Batch, Subject


class S1Loss(torch.nn.Module):
    """The weighted sum of its terms; build with :func:`make_s1_loss`.

    Called as ``loss(subject, batch, generator)``, with a batch on the subject's device; all randomness comes from
    the generator, which is on the CPU. ``.to(device)`` moves the score model and the perceptual measure.

    Args:
        adversary: discriminators, which learn in each call.
        grid: pixels that the model takes multiples of, for the term ``shifted``.

    Attributes:
        step: of the run, counted from 0.
    """

    def __init__(
        self,
        config: S1LossConfig,
        perceptual: Perceptual | None = None,
        csd: CSD | None = None,
        adversary: Adversary | None = None,
        grid: int = 16,
    ):
        super().__init__()
        self.config = config.resolved()
        self.perceptual, self.csd, self.adversary, self.grid = perceptual, csd, adversary, grid
        self.step = 0
        self._terms: dict[str, torch.Tensor] = {}

    @property
    def terms(self) -> dict[str, float]:
        """Each term of the last call, not weighted: ``l1``, ``l2``, ``edges``, ``perceptual``, ``csd``, ``shifted``;
        and what the adversary tells."""
        return {name: float(value) for name, value in self._terms.items()}

    def forward(self, subject: Subject, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """The loss, a float32 scalar."""
        c, n = self.config, len(batch)
        # Models that accelerate wraps for several devices hold the subject in `module`.
        inner: Subject = getattr(subject, "module", subject)
        positive = torch.ones(n, dtype=torch.bool)
        if c.null_prompt and not inner.negatives:
            positive = torch.rand(n, generator=generator) >= c.null_prompt
        z_lq, z = self._restored(subject, batch, positive)
        in_picture = bool((c.space == "picture" and (c.l1 or c.l2)) or c.edges or c.perceptual)
        twice = bool(c.shifted) and self.step % 2 == 0 and torch.is_grad_enabled()
        seen = in_picture or twice or self.adversary is not None
        picture = inner.decode(z).float() if seen else None
        terms = {} if picture is None else self._picture_terms(picture, batch, generator)
        total = self._sum(terms)
        if self.adversary is not None and picture is not None:
            total = self.adversary(picture, total, batch, generator, self.step)
        others = self._latent_terms(z, batch, inner)
        if self.csd is not None:
            others["csd"] = self.csd(z_lq, z, batch, generator)
        if twice and picture is not None:
            part = moved_batch(batch, self.grid)
            others["shifted"] = shifted(picture, inner.decode(self._restored(subject, part, positive)[1]).float())
        told = {} if self.adversary is None else self.adversary.terms
        self._terms = {name: value.detach() for name, value in (terms | others | told).items()}
        return total + self._sum(others) if others else total

    def _restored(self, subject: Subject, batch: Batch, positive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of the canvas and of the result."""
        inner: Subject = getattr(subject, "module", subject)
        z_lq = inner.encode(batch.lq)
        step = inner.s1_timestep if self.config.timestep is None else self.config.timestep
        t = torch.full((len(batch),), step, device=z_lq.device)
        conditioning = inner.conditioning(batch, positive.to(z_lq.device))
        return z_lq, z_lq - subject(z_lq, t, batch.lq, conditioning)

    def _sum(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        weighed = [getattr(self.config, name) * value for name, value in terms.items()]
        return torch.stack(weighed).sum() if weighed else torch.zeros(())

    def _picture_terms(
        self, picture: torch.Tensor, batch: Batch, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """What compares pictures with HQ."""
        c = self.config
        terms: dict[str, torch.Tensor] = {}
        # Pictures in [-1, 1], as the published weights have them.
        error = 2 * (picture - batch.hq)
        if c.space == "picture":
            terms |= self._errors(error)
        if c.edges:
            terms["edges"] = torch.stack([d.abs().mean() for d in haar_details(error)]).sum()
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(picture, batch.hq, generator).mean()
        return terms

    def _latent_terms(self, z: torch.Tensor, batch: Batch, subject: Subject) -> dict[str, torch.Tensor]:
        """What compares latents with HQ's, which need no decoding."""
        c = self.config
        return self._errors(z - subject.encode(batch.hq)) if c.space == "latent" and (c.l1 or c.l2) else {}

    def _errors(self, apart: torch.Tensor) -> dict[str, torch.Tensor]:
        terms = {}
        if self.config.l1:
            terms["l1"] = apart.abs().mean()
        if self.config.l2:
            terms["l2"] = apart.square().mean()
        return terms


def make_s1_loss(
    config: S1LossConfig,
    subject: Subject,
    score: Subject | None = None,
    adversary: Adversary | None = None,
    grid: int = 16,
) -> S1Loss:
    """The loss that a configuration asks for, on the subject's device.

    Args:
        subject: what will be trained.
        score: CSD's frozen model, over the subject's latents; it is put in evaluation and loses its gradients.
        adversary, grid: see :class:`S1Loss`.

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
    return S1Loss(c, perceptual, csd, adversary, grid).to(device)
