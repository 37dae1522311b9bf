"""Phase exchange and phase-only reconstruction (the paper's Section 3.2).

A picture's structure sits in the phase of its Fourier transform, its contrast in the magnitude. PEAM
gives the phase of the LQ features to the UNet's features and leaves them their own magnitude.

All transforms run in float32: CUDA's half-precision FFT takes powers of two only, bfloat16 has none,
and squares of half-precision features overflow. Nothing here computes an angle: the unit phasor
``F / |F|`` is exact where ``exp(i * angle(F))`` is two transcendental functions, and it differentiates.
"""

from __future__ import annotations

import torch

#: Where ``|F|`` is at or below this fraction of its channel's largest magnitude, F has no phase to give.
NULL_PHASE = 1e-6


def _unit_phasor(spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``spectrum / |spectrum|`` and the mask of entries that carry a phase at all.

    Args:
        spectrum: complex, ``(..., H, W // 2 + 1)``; the threshold is taken over the last two axes.
    """
    magnitude = spectrum.abs()
    has_phase = magnitude > NULL_PHASE * magnitude.amax(dim=(-2, -1), keepdim=True)
    return spectrum / torch.where(has_phase, magnitude, torch.ones_like(magnitude)), has_phase


def _unit_range(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``x`` in float32 divided by its largest magnitude (of that plane), and that magnitude.

    Transforms of the quotient neither overflow nor underflow. Neither the phase nor, multiplied back, the
    magnitude depends on the divisor, so no gradient has to flow through it.
    """
    x = x.float()
    peak = x.detach().abs().amax(dim=(-2, -1), keepdim=True)
    peak = torch.where(peak > 0, peak, torch.ones_like(peak))
    return x / peak, peak


def exchange_phase(h: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """``irfft2(|rfft2(h)| * rfft2(f) / |rfft2(f)|)``: h's magnitude with f's phase.

    Where f has no energy (``|F| <= 1e-6 * max|F|`` of that channel and sample, so also everywhere for a
    black or, beyond its mean, a constant f) there is nothing to exchange and h keeps its own phase;
    phase 0 would gather all of h's energy in one pixel.

    Args:
        h: ``(..., H, W)`` real features of any floating dtype, any height and width.
        f: features of the same shape.

    Returns:
        ``(..., H, W)`` in h's dtype, on h's device; finite for every finite input.

    Raises:
        ValueError: if the shapes differ.
    """
    if h.shape != f.shape:
        raise ValueError(f"exchange_phase needs equal shapes, got {tuple(h.shape)} and {tuple(f.shape)}")
    size = h.shape[-2:]
    unit, peak = _unit_range(h)
    own = torch.fft.rfft2(unit)
    phasor, has_phase = _unit_phasor(torch.fft.rfft2(_unit_range(f)[0]))
    mixed = torch.where(has_phase, own.abs() * phasor, own)
    result = torch.fft.irfft2(mixed, s=size) * peak
    # Aligned phases can add up to more than h's dtype holds, though h itself fitted.
    limit = min(torch.finfo(h.dtype).max, torch.finfo(result.dtype).max)
    return result.clamp(-limit, limit).to(h.dtype)


def phase_only(x: torch.Tensor) -> torch.Tensor:
    """Reconstruction from the phase alone, every magnitude set to one (the paper's Figure 1).

    Args:
        x: ``(..., H, W)`` real, any floating dtype.

    Returns:
        ``(..., H, W)`` in x's dtype. The transform is orthonormal, so the mean square of a channel is the
        share of its spectrum that has a phase: 1 for most pictures, 0 for a black one.
    """
    phasor, has_phase = _unit_phasor(torch.fft.rfft2(_unit_range(x)[0], norm="ortho"))
    return torch.fft.irfft2(phasor * has_phase, s=x.shape[-2:], norm="ortho").to(x.dtype)
