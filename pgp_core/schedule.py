"""SDXL's noise schedule and the three predictions that our models make."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TRAIN_STEPS = 1000
#: What a UNet may output, by diffusers' names; see :func:`target`.
PREDICTIONS = ("epsilon", "v_prediction", "sample")
BETA_START, BETA_END = 0.00085, 0.012


def alphas_cumprod() -> torch.Tensor:
    """``(1000,)`` float32: the product of ``1 - beta`` up to each timestep, "scaled linear" betas."""
    return exact_alphas_cumprod().float()


def exact_alphas_cumprod() -> torch.Tensor:
    """:func:`alphas_cumprod` in float64."""
    # What else is here is read by what must start without PyTorch.
    import torch

    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


def add_noise(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """``sqrt(a_t) x0 + sqrt(1 - a_t) noise`` with one timestep per sample.

    Args:
        x0, noise: ``(B, C, H, W)``.
        t: ``(B,)`` integers, 0 to 999.
    """
    a = alphas_cumprod().to(x0.device)[t].view(-1, 1, 1, 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def target(prediction: str, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """What the UNet is trained to output.

    Args:
        prediction: ``"epsilon"`` (the noise), ``"v_prediction"`` (``sqrt(a) noise - sqrt(1 - a) x0``) or
            ``"sample"`` (``x0``); diffusers' names.

    Raises:
        ValueError: for another prediction.
    """
    if prediction == "epsilon":
        return noise
    if prediction == "v_prediction":
        a = alphas_cumprod().to(x0.device)[t].view(-1, 1, 1, 1)
        return a.sqrt() * noise - (1 - a).sqrt() * x0
    if prediction == "sample":
        return x0
    raise ValueError(f'prediction is "epsilon", "v_prediction" or "sample", not {prediction!r}')


def denoised(prediction: str, out: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The clean latent that a UNet's output stands for; the inverse of :func:`target`.

    Args:
        out: ``(B, C, H, W)``, what the UNet output for ``x``.
        x: the noised latent.
        t: ``(B,)`` integers, 0 to 999.

    Raises:
        ValueError: for another prediction.
    """
    a = alphas_cumprod().to(x.device)[t].view(-1, 1, 1, 1)
    if prediction == "epsilon":
        return (x - (1 - a).sqrt() * out) / a.sqrt()
    if prediction == "v_prediction":
        return a.sqrt() * x - (1 - a).sqrt() * out
    if prediction == "sample":
        return out
    raise ValueError(f'prediction is "epsilon", "v_prediction" or "sample", not {prediction!r}')


def start_gain(sigma: float, latent_std: float) -> float:
    """The factor by which start noise must be larger than ``sigma``.

    A noised latent ``x0 + sigma noise`` has the variance ``sigma**2 + latent_std**2``. If it starts with less, a
    model takes the lack for a sign that there is little to find. Where sigma is less than three times
    ``latent_std`` the answer is 1: white noise is no stand-in for so much of a picture's detail.

    Args:
        latent_std: standard deviation of what is to be found, 0 where sigma is far larger.
    """
    return (1 + (latent_std / sigma) ** 2) ** 0.5 if sigma >= 3 * latent_std > 0 else 1.0
