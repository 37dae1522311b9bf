"""One step (S1) as a SAMPLER for core."""

from __future__ import annotations

import copy
import logging
from typing import Any, cast

import torch
from comfy.model_patcher import ModelPatcher, ModelPatcherDynamic
from comfy.samplers import KSAMPLER, CFGGuider

from ...pgp_core.errors import PGPError
from ...pgp_core.number import number
from ...pgp_core.sampling.one_step import Dial, dialled, one_step
from ...pgp_core.schedule import TRAIN_STEPS
from ...pgp_core.unet.prediction import Predict
from .noise_levels import Level
from .one_step_checks import NAME, check_latent, check_s1, check_sigmas, check_wires, family
from .records import record_of
from .tiling.full_precision import in_float32

log = logging.getLogger(__name__)


def one_step_sampler(
    model: ModelPatcher,
    timestep: int | None = None,
    pixel_model: ModelPatcher | None = None,
    pixel: float = 1.0,
    semantic: float = 1.0,
    rule: str | None = None,
) -> tuple[Any, torch.Tensor]:
    """SAMPLER and SIGMAS that compute :func:`pgp_core.sampling.one_step.one_step` on a MODEL.

    How the MODEL that is sampled predicts is read at its call: between this node and the sampler others may change
    it, and the UNet's output is the same in any case.

    Args:
        timestep: 0 to 999; None for the model's own.
        rule: one of :data:`pgp_core.sampling.rules.RULES` but Euler's; None for the model's own.
        pixel_model: the same MODEL without the semantic LoRA, for the dial.
        pixel, semantic: see :class:`pgp_core.sampling.one_step.Dial`; other than equal, they take ``pixel_model``.

    Raises:
        PGPError: if a MODEL predicts neither noise, nor v, nor the sample, on SDXL's noise levels; if the dial lacks
            ``pixel_model``, or that is another kind of model. The SAMPLER raises it for what it is connected to, see
            :mod:`.one_step_checks`.
    """
    timestep, rule = _decided(model, timestep, rule)
    number(timestep, f"{NAME}: the timestep must be", 0, TRAIN_STEPS - 1, whole=True)
    dial = Dial(pixel, semantic)
    own, kind = Level.of(model.get_model_object("model_sampling"), timestep, NAME), family(model)
    if pixel_model is None:
        if not dial.merged:
            raise PGPError(
                f"{NAME}: strengths that differ weigh two LoRAs; connect pixel_model, the MODEL before the semantic "
                "LoRA"
            )
    else:
        Level.of(pixel_model.get_model_object("model_sampling"), timestep, NAME)
        if family(pixel_model) != kind:
            raise PGPError(
                f"{NAME}: pixel_model is another kind of model; connect the same MODEL before the semantic LoRA"
            )

    def sample(
        denoise: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any = None, callback: Any = None, **_: Any
    ) -> torch.Tensor:
        extra, guider = dict(extra_args or {}), denoise.inner_model
        check_wires(guider, denoise, extra.get("denoise_mask"), kind)
        extra["denoise_mask"] = None
        level = Level.of(guider.inner_model.model_sampling, timestep, NAME)
        check_sigmas(sigmas, own.sigma, guider.inner_model.model_sampling, timestep)
        check_latent(guider, x)
        check_s1(guider.model_patcher, timestep)

        def without_semantic(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            # Merged strengths never ask for it, and others have it.
            assert pixel_model is not None
            return _on_other_model(guider, pixel_model, timestep, z, t, extra.get("seed"))

        z_h = one_step(dialled(without_semantic, _of_unet(denoise, level, extra), dial), x, timestep, rule)
        if callback is not None:
            callback({"i": 0, "x": x, "sigma": sigmas[0], "sigma_hat": sigmas[0], "denoised": z_h})
        return z_h

    return KSAMPLER(sample), torch.tensor([own.sigma, 0.0])


def _decided(model: ModelPatcher, timestep: int | None, rule: str | None) -> tuple[int, str]:
    """The user's, else the model's own, which is said."""
    recipe = record_of(model).recipe(True, timestep=timestep, rule=rule)
    chosen = recipe.timestep if recipe.timestep is not None else 1
    if timestep is None:
        log.info("%s: timestep %d, by rule %s, as %s has it", NAME, chosen, recipe.rule, record_of(model).family.title)
    return chosen, recipe.rule


def _of_unet(denoise: Any, level: Level, extra_args: dict[str, Any]) -> Predict:
    """The UNet's output through core's denoiser, that is with CFG, guidance and whatever else acts there."""

    def denoised(noised: torch.Tensor) -> torch.Tensor:
        x0: torch.Tensor = denoise(noised, noised.new_full((noised.shape[0],), level.sigma), **extra_args)
        if bool(x0.isfinite().all()):
            return x0
        base = denoise.inner_model.inner_model
        dtype = base.get_dtype_inference()
        if dtype != torch.float32:
            log.warning("%s: the model overflowed in %s; it is run again in float32", NAME, dtype)
            with in_float32(base):
                x0 = denoise(noised, noised.new_full((noised.shape[0],), level.sigma), **extra_args)
        if not bool(x0.isfinite().all()):
            raise PGPError(
                f"{NAME}: the model's result is not finite, not even in float32; its weights, a LoRA or the "
                "conditioning are damaged"
            )
        return x0

    def predict(z: torch.Tensor, _t: torch.Tensor) -> torch.Tensor:
        s = level.sigma
        scale = (1 + s**2) ** 0.5
        # Core divides its input by `scale` and returns x0; both are undone to get the UNet's raw output.
        noised = z * scale
        x0 = denoised(noised)
        if level.prediction == "sample":
            return x0
        if level.prediction == "v_prediction":
            return (noised / scale**2 - x0) * scale / s
        return (noised - x0) / s

    return predict


def _on_other_model(
    guider: CFGGuider,
    model: ModelPatcher,
    timestep: int,
    z: torch.Tensor,
    t: torch.Tensor,
    seed: int | None,
) -> torch.Tensor:
    """What another MODEL's UNet outputs under the same conditioning and CFG, by a sampling run of its own.

    Both MODELs are mostly clones of one, and share its weights, so core must load the one for the other: it does
    so at the start of a run. The first MODEL is not called again after that.
    """
    other = copy.copy(guider)
    # Conditioning with hooks has moved the guider to a patcher that is not dynamic.
    if model.is_dynamic() and not guider.model_patcher.is_dynamic():
        model = cast(ModelPatcherDynamic, model).get_non_dynamic_delegate()
    other.model_patcher, other.model_options = model, model.model_options
    found: list[torch.Tensor] = []

    def capture(denoise: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any = None, **_: Any) -> torch.Tensor:
        level = Level.of(denoise.inner_model.inner_model.model_sampling, timestep, NAME)
        found.append(_of_unet(denoise, level, extra_args or {})(z, t))
        return x

    sigmas = torch.tensor([Level.of(model.get_model_object("model_sampling"), timestep, NAME).sigma, 0.0])
    other.sample(torch.zeros_like(z), z, KSAMPLER(capture), sigmas, disable_pbar=True, seed=seed)
    return found[0]
