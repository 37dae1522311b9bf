"""What is trained: UNet, guidance and the two learned contexts, as one module."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch

from ..guidance import Guidance
from ..nano import TIME_IDS
from ..unet_diffusers import guided
from ..unet_shape import UNetShape


class Contexts(torch.nn.Module):
    """Learned conditioning in place of a text encoder: row 0 negative, row 1 positive.

    The negative context is trained towards the LQ canvas, the positive towards HQ (S3Diff's recipe), so
    classifier-free guidance extrapolates from "as degraded as the input" to "clean".
    """

    def __init__(self, context_dim: int, pooled_dim: int, tokens: int = 8):
        super().__init__()
        self.context = torch.nn.Parameter(torch.randn(2, tokens, context_dim))
        self.pooled = torch.nn.Parameter(torch.randn(2, pooled_dim))

    def forward(self, positive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B,)`` booleans to ``(B, tokens, context_dim)`` and ``(B, pooled_dim)``."""
        index = positive.long()
        return self.context[index], self.pooled[index]


class Restorer(torch.nn.Module):
    """A UNet with guidance in place, called as training calls it."""

    def __init__(self, unet: torch.nn.Module, guidance: Guidance, shape: UNetShape):
        super().__init__()
        self.unet = unet
        self.guidance = guidance
        self.contexts = Contexts(shape.context_dim, shape.pooled_dim)

    def forward(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        lq: torch.Tensor,
        positive: torch.Tensor,
        base: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The UNet's output.

        Args:
            x: ``(B, C, h, w)`` latent, scaled as the model wants it.
            t: ``(B,)`` timesteps.
            lq: ``(B, 3, H, W)`` canvas in [0, 1].
            positive: ``(B,)`` booleans, which context each sample has.
            base: ``(B,)`` booleans, which samples have the additive sites; all of them by default.
        """
        context, pooled = self.contexts(positive)
        ids = torch.tensor(TIME_IDS, device=x.device, dtype=x.dtype).expand(x.shape[0], -1)
        with guided(self.unet, self.guidance, self._features(lq, base)):
            out = self.unet(
                x,
                t,
                encoder_hidden_states=context,
                added_cond_kwargs={"text_embeds": pooled, "time_ids": ids},
                return_dict=False,
            )[0]
        return out.float()

    def _features(self, lq: torch.Tensor, base: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        features = self.guidance.features(lq)
        if base is None:
            return features
        keep = base.view(-1, 1, 1, 1)
        sites = self.guidance.spec.sites
        return tuple(f * keep if s.fusion == "add" else f for f, s in zip(features, sites, strict=True))


class EMA:
    """Exponential moving average of a module's trainable parameters, warmed up as in DDPM.

    The effective decay is ``min(decay, (1 + n) / (10 + n))`` after n updates.
    """

    def __init__(self, module: torch.nn.Module, decay: float = 0.999):
        self.decay = decay
        self.updates = 0
        self.shadow = {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        """Move the average towards the module's weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        names, live = zip(*self._live(module), strict=True)
        torch._foreach_lerp_([self.shadow[n] for n in names], [p.detach() for p in live], 1 - decay)

    @torch.no_grad()
    def averaged(self, module: torch.nn.Module) -> torch.nn.Module:
        """A copy of the module with the averaged weights, in eval mode."""
        twin = copy.deepcopy(module)
        for name, p in self._live(twin):
            p.copy_(self.shadow[name])
        return twin.eval()

    def _live(self, module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
        return ((n, p) for n, p in module.named_parameters() if n in self.shadow)
