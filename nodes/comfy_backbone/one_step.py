"""One step (S1) as a SAMPLER for core."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
import comfy.samplers
import torch

from ...pgp_core.errors import PGPError
from ...pgp_core.one_step import one_step


def one_step_sampler(model: Any, timestep: int) -> tuple[Any, torch.Tensor]:
    """SAMPLER and SIGMAS that compute :func:`pgp_core.one_step.one_step` on a MODEL.

    Raises:
        PGPError: if the MODEL predicts neither noise, nor v, nor the sample.
    """
    sampling = model.get_model_object("model_sampling")
    # V_PREDICTION and X0 are subclasses of EPS in core, and have subclasses that scale their input otherwise.
    kinds = (comfy.model_sampling.V_PREDICTION, comfy.model_sampling.X0, comfy.model_sampling.EPS)
    kind = next((k for k in kinds if isinstance(sampling, k)), None)
    if kind is None or isinstance(sampling, (comfy.model_sampling.IMG_TO_IMG, comfy.model_sampling.EDM)):
        raise PGPError(
            "PGP-DiffSR One Step needs a model that predicts noise, v or the sample, such as SDXL; this MODEL does not"
        )
    sigma = float(sampling.sigma(torch.tensor(float(timestep))))

    def sample(
        denoise: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any = None, callback: Any = None, **_: Any
    ) -> torch.Tensor:
        if (extra_args or {}).get("denoise_mask") is not None:
            raise PGPError("PGP-DiffSR One Step cannot follow a noise mask: remove Set Latent Noise Mask")
        s = sigmas[0]
        scale = (1 + s**2) ** 0.5

        def predict(z: torch.Tensor, _t: torch.Tensor) -> torch.Tensor:
            # Core divides its input by `scale` and returns x0; both are undone to get the UNet's raw output.
            noised = z * scale
            x0 = denoise(noised, s.expand(z.shape[0]), **(extra_args or {}))
            if kind is comfy.model_sampling.X0:
                return x0
            if kind is comfy.model_sampling.V_PREDICTION:
                return (noised / scale**2 - x0) * scale / s
            return (noised - x0) / s

        z_h = one_step(predict, x, timestep)
        if callback is not None:
            callback({"i": 0, "x": x, "sigma": s, "sigma_hat": s, "denoised": z_h})
        return z_h

    return comfy.samplers.KSAMPLER(sample), torch.tensor([sigma, 0.0])
