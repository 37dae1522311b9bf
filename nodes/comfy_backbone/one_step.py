"""One step (S1) as a SAMPLER for core."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import comfy.model_sampling
import comfy.samplers
import torch

from ...pgp_core.errors import PGPError
from ...pgp_core.one_step import Dial, Predict, dialled, one_step


def one_step_sampler(
    model: Any, timestep: int, pixel_model: Any = None, pixel: float = 1.0, semantic: float = 1.0
) -> tuple[Any, torch.Tensor]:
    """SAMPLER and SIGMAS that compute :func:`pgp_core.one_step.one_step` on a MODEL.

    Args:
        pixel_model: the same MODEL without the semantic LoRA, for the dial.
        pixel, semantic: see :class:`pgp_core.one_step.Dial`; other than equal, they take ``pixel_model``.

    Raises:
        PGPError: if a MODEL predicts neither noise, nor v, nor the sample; if the dial lacks ``pixel_model``, or
            that is another kind of model.
    """
    dial = Dial(pixel, semantic)
    output = _Output.of(model, timestep)
    if pixel_model is None:
        if not dial.merged:
            raise PGPError(
                "PGP-DiffSR One Step: strengths that differ weigh two LoRAs; connect pixel_model, the MODEL before "
                "the semantic LoRA"
            )
        pixel_output = output
    else:
        pixel_output = _Output.of(pixel_model, timestep)
        if type(pixel_model.model.latent_format) is not type(model.model.latent_format):
            raise PGPError(
                "PGP-DiffSR One Step: pixel_model is another kind of model; connect the same MODEL before the "
                "semantic LoRA"
            )

    def sample(
        denoise: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any = None, callback: Any = None, **_: Any
    ) -> torch.Tensor:
        extra = extra_args or {}
        if extra.get("denoise_mask") is not None:
            raise PGPError("PGP-DiffSR One Step cannot follow a noise mask: remove Set Latent Noise Mask")

        def without_semantic(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return _on_other_model(denoise.inner_model, pixel_model, pixel_output, z, t, extra.get("seed"))

        z_h = one_step(dialled(without_semantic, output.of_unet(denoise, sigmas[0], extra), dial), x, timestep)
        if callback is not None:
            callback({"i": 0, "x": x, "sigma": sigmas[0], "sigma_hat": sigmas[0], "denoised": z_h})
        return z_h

    return comfy.samplers.KSAMPLER(sample), torch.tensor([output.sigma, 0.0])


@dataclass(frozen=True)
class _Output:
    """How core's clean latent is turned back into the UNet's output.

    Attributes:
        kind: core's class for what the model predicts.
        sigma: noise level of the timestep.
    """

    kind: type
    sigma: float

    @classmethod
    def of(cls, model: Any, timestep: int) -> _Output:
        sampling = model.get_model_object("model_sampling")
        # V_PREDICTION and X0 are subclasses of EPS in core, and have subclasses that scale their input otherwise.
        kinds = (comfy.model_sampling.V_PREDICTION, comfy.model_sampling.X0, comfy.model_sampling.EPS)
        kind = next((k for k in kinds if isinstance(sampling, k)), None)
        if kind is None or isinstance(sampling, (comfy.model_sampling.IMG_TO_IMG, comfy.model_sampling.EDM)):
            raise PGPError(
                "PGP-DiffSR One Step needs a model that predicts noise, v or the sample, such as SDXL; "
                "this MODEL does not"
            )
        return cls(kind, float(sampling.sigma(torch.tensor(float(timestep)))))

    def of_unet(self, denoise: Any, s: torch.Tensor, extra_args: dict[str, Any]) -> Predict:
        """The UNet's output through core's denoiser, that is with CFG, guidance and whatever else acts there."""

        def predict(z: torch.Tensor, _t: torch.Tensor) -> torch.Tensor:
            scale = (1 + s**2) ** 0.5
            # Core divides its input by `scale` and returns x0; both are undone to get the UNet's raw output.
            noised = z * scale
            x0 = denoise(noised, s.expand(z.shape[0]), **extra_args)
            if self.kind is comfy.model_sampling.X0:
                return x0
            if self.kind is comfy.model_sampling.V_PREDICTION:
                return (noised / scale**2 - x0) * scale / s
            return (noised - x0) / s

        return predict


def _on_other_model(
    guider: Any, model: Any, output: _Output, z: torch.Tensor, t: torch.Tensor, seed: int | None
) -> torch.Tensor:
    """What another MODEL's UNet outputs under the same conditioning and CFG, by a sampling run of its own.

    Both MODELs are mostly clones of one, and share its weights, so core must load the one for the other: it does
    so at the start of a run. The first MODEL is not called again after that.
    """
    other = copy.copy(guider)
    # Conditioning with hooks has moved the guider to a patcher that is not dynamic.
    if model.is_dynamic() and not guider.model_patcher.is_dynamic():
        model = model.get_non_dynamic_delegate()
    other.model_patcher, other.model_options = model, model.model_options
    found: list[torch.Tensor] = []

    def capture(denoise: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any = None, **_: Any) -> torch.Tensor:
        found.append(output.of_unet(denoise, sigmas[0], extra_args or {})(z, t))
        return x

    sigmas = torch.tensor([output.sigma, 0.0])
    other.sample(torch.zeros_like(z), z, comfy.samplers.KSAMPLER(capture), sigmas, disable_pbar=True, seed=seed)
    return found[0]
