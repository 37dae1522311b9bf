"""What a MODEL's UNet outputs, as its sampling has it now: exactly, or not at all."""

from __future__ import annotations

import comfy.model_sampling
import torch
from comfy.model_patcher import ModelPatcher

from ...pgp_core.errors import CheckpointError

_PREDICTIONS = {
    "sample": comfy.model_sampling.X0,
    "v_prediction": comfy.model_sampling.V_PREDICTION,
    "epsilon": comfy.model_sampling.EPS,
}
#: What makes SDXL's sampling what it is. Classes of core and of other packs inherit from each other and replace some.
_OF_KIND, _OF_SCHEDULE = ("calculate_input", "calculate_denoised"), ("timestep", "sigma")
#: Name of a MODEL's object for it.
SAMPLING = "model_sampling"


def prediction_of(model: ModelPatcher) -> tuple[str, bool]:
    """The prediction of a MODEL that is sampled as SDXL is, by diffusers' names, and whether its schedule ends in pure
    noise (zero terminal SNR).

    Raises:
        CheckpointError: if it is sampled in another way, such as LCM, EDM or flow: no file of ours can say that.
    """
    sampling = model.get_model_object(SAMPLING)
    kind, discrete = type(sampling), comfy.model_sampling.ModelSamplingDiscrete
    found = next((name for name, c in _PREDICTIONS.items() if _same(kind, c, _OF_KIND)), None)
    zero_snr = bool(getattr(sampling, "zsnr", False))
    if found is None or not _same(kind, discrete, _OF_SCHEDULE) or getattr(sampling, "sigma_data", 1.0) != 1.0:
        raise _refusal(model, kind)
    own = discrete(model.model.model_config, zsnr=zero_snr).sigmas
    theirs = sampling.sigmas.to(own.device)
    if own.shape != theirs.shape or not torch.allclose(own, theirs, rtol=1e-4):
        raise _refusal(model, kind)
    return found, zero_snr


def _same(kind: type, base: type, methods: tuple[str, ...]) -> bool:
    return all(getattr(kind, m, None) is getattr(base, m) for m in methods)


def _refusal(model: ModelPatcher, kind: type) -> CheckpointError:
    names = " and ".join(c.__name__ for c in kind.__bases__ if c is not object)
    text = f"this MODEL is sampled in another way than SDXL ({names}), which its file would not say"
    if SAMPLING in model.object_patches:
        return CheckpointError(f"{text}: connect the MODEL from before the node that set it, and set it after loading")
    continuous = issubclass(kind, comfy.model_sampling.ModelSamplingContinuousEDM)
    if continuous and _same(kind, comfy.model_sampling.V_PREDICTION, _OF_KIND):
        return CheckpointError(f"{text}: core's Save Model can save it")
    return CheckpointError(f"{text}: keep the file that it was loaded from")
