"""How far apart two feature maps are: the paper's Equations 1 and 2. Zero means equal."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """``(B, C, H, W)`` or ``(B, tokens, C)`` to ``(B, positions, C)`` in float32.

    Raises:
        ValueError: for another number of axes.
    """
    if x.ndim == 4:
        return x.float().flatten(2).transpose(1, 2)
    if x.ndim == 3:
        return x.float()
    raise ValueError(f"features are (B, C, H, W) or (B, tokens, C), not {tuple(x.shape)}")


def phi_cos(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``1 - cos`` of the channel vectors at each position, averaged over positions (Equation 1).

    Args:
        a, b: ``(B, positions, C)`` float32, see :func:`channels_last`.

    Returns:
        ``(B,)`` in [0, 2]. Two zero vectors are equal (0); a zero vector and another one are unrelated (1).
    """
    # Divided by their largest entry first: squares of large features overflow float32 too.
    a, b = (x / x.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny) for x in (a, b))
    norm_a, norm_b = a.norm(dim=-1), b.norm(dim=-1)
    cos = (a * b).sum(-1) / (norm_a * norm_b).clamp(min=torch.finfo(a.dtype).tiny)
    both_zero = (norm_a == 0) & (norm_b == 0)
    return (1 - torch.where(both_zero, torch.ones_like(cos), cos)).clamp(0, 2).mean(-1)


def psi_kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``KL(softmax(a) || softmax(b))`` over channels at each position, averaged over positions (Equation 2).

    Args:
        a: ``(B, positions, C)`` float32: a block's input, or the earlier timestep.
        b: its output, or the later timestep.

    Returns:
        ``(B,)``, at least 0, in nats.
    """
    log_a, log_b = F.log_softmax(a, dim=-1), F.log_softmax(b, dim=-1)
    # Far apart logits give exp(-inf) * inf, which is 0 here: no probability, no cost.
    p = log_a.exp()
    terms = torch.where(p > 0, p * (log_a - log_b), torch.zeros_like(p))
    return terms.sum(-1).clamp(min=0).mean(-1)
