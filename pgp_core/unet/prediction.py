"""How a UNet is to be sampled, from everything that says so: keys, our metadata and others', a scheduler's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..schedule import BETA_END, BETA_START, PREDICTIONS, TRAIN_STEPS

if TYPE_CHECKING:
    import torch

    from ..files.weights import WeightsFile

#: A UNet's raw output for a latent and timesteps, with whatever guides it in place.
Predict = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]

#: Empty or scalar tensors by which checkpoints say how they predict; core's own.
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
MARKERS = (V_PREDICTION, ZERO_SNR, *EDM)

_SPELLINGS = {
    **{"epsilon": "epsilon", "eps": "epsilon", "noise": "epsilon"},
    **{"v_prediction": "v_prediction", "v": "v_prediction", "v_pred": "v_prediction", "velocity": "v_prediction"},
    **{"sample": "sample", "x0": "sample"},
}
#: Metadata in words, the most trusted first; the second is ComfyUI's own.
_WORDS = ("modelspec.prediction_type", "modelspec.predict_key", "prediction_type")
#: Metadata that says yes or no: kohya's trainer's, and others' after it.
_V_FLAGS = ("ss_v_parameterization", "v_parameterization", V_PREDICTION)
_ZERO_FLAGS = ("ss_zero_terminal_snr", "zero_terminal_snr", "modelspec.zero_terminal_snr", ZERO_SNR, "zsnr")
_SPACINGS = ("leading", "trailing", "linspace")
_SCHEDULE = {
    "beta_start": BETA_START,
    "beta_end": BETA_END,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": TRAIN_STEPS,
}


@dataclass(frozen=True)
class Told:
    """What is said of a UNet's sampling.

    Attributes:
        prediction: one of :data:`pgp_core.schedule.PREDICTIONS`.
        zero_snr: the noise schedule ends in pure noise ("zero terminal SNR").
        spacing: of the timesteps, by diffusers' names.
        notes: what is to be said of it, a line each.
    """

    prediction: str
    zero_snr: bool
    spacing: str
    notes: tuple[str, ...]


def told(file: WeightsFile, prefix: str, about: Mapping[str, Any]) -> Told:
    """Gather what a file, and the diffusers folder that it lies in, say.

    Where two contradict each other the first of these is taken, and it is said: our own metadata, keys, the folder's
    scheduler, others' metadata. Where none says anything it is noise.

    Args:
        prefix: under which the UNet stands.
        about: our own metadata, see :data:`pgp_core.unet.inspect.MODEL_KEY`.

    Raises:
        CheckpointError: if it is to be sampled in a way that is not SDXL's.
    """
    _refuse_others(file, prefix)
    claims = _claims(file, prefix, about)
    prediction = next(iter(claims.values()), "epsilon")
    notes = []
    if len(set(claims.values())) > 1:
        said = ", ".join(f"{where} says {what}" for where, what in claims.items())
        notes.append(f"it contradicts itself on what it predicts ({said}): {prediction} is taken")
    scheduler = file.scheduler
    spacing = scheduler.get("timestep_spacing")
    if str(scheduler.get("_class_name", "")).startswith(("LCM", "TCD")):
        notes.append("it was distilled for a sampler of its own (LCM), in few steps with a CFG of 1 to 2")
    other = [f"{k} {scheduler[k]}" for k, v in _SCHEDULE.items() if k in scheduler and not _same(scheduler[k], v)]
    if other:
        notes.append(f"its scheduler has another noise schedule ({', '.join(other)}): SDXL's is used")
    return Told(
        prediction, _zero_snr(file, prefix, about), spacing if spacing in _SPACINGS else "leading", tuple(notes)
    )


def _claims(file: WeightsFile, prefix: str, about: Mapping[str, Any]) -> dict[str, str]:
    """What is predicted, by who says so; the most trusted first."""
    claims: dict[str, str] = {}
    if "prediction" in about:
        if about["prediction"] not in PREDICTIONS:
            raise CheckpointError(
                f"{file.name} predicts {about['prediction']!r}, which this release does not know: update"
            )
        claims["pgp.model"] = str(about["prediction"])
    if _has(file, prefix, V_PREDICTION):
        claims[f"the key {V_PREDICTION}"] = "v_prediction"
    words = {"the scheduler's prediction_type": file.scheduler.get("prediction_type")}
    words |= {key: file.metadata.get(key) for key in _WORDS}
    for where, word in words.items():
        if not word:
            continue
        found = _SPELLINGS.get(str(word).strip().lower().replace("-", "_"))
        if found is None:
            raise CheckpointError(
                f"{file.name} predicts {str(word)!r} ({where}), which SDXL's samplers do not know: choose another model"
            )
        claims[where] = found
    for key in _V_FLAGS:
        if key in file.metadata:
            claims[key] = "v_prediction" if _yes(file.metadata[key]) else "epsilon"
    return claims


def _zero_snr(file: WeightsFile, prefix: str, about: Mapping[str, Any]) -> bool:
    """Whoever says so is right: nobody writes it by mistake, and diffusers' folders say no where nobody was asked."""
    if "zero_snr" in about:
        return bool(about["zero_snr"])
    return (
        _has(file, prefix, ZERO_SNR)
        or bool(file.scheduler.get("rescale_betas_zero_snr"))
        or any(_yes(file.metadata.get(key, "")) for key in _ZERO_FLAGS)
    )


def _refuse_others(file: WeightsFile, prefix: str) -> None:
    kind = str(file.scheduler.get("_class_name", ""))
    if any(_has(file, prefix, k) for k in EDM) or kind.startswith("EDM"):
        raise CheckpointError(
            f"{file.name} is an EDM model (Playground 2.5 is one); SDXL's own noise schedule is needed"
        )
    if kind.startswith("FlowMatch"):
        raise CheckpointError(f"{file.name} is a flow-matching model ({kind}); SDXL's own noise schedule is needed")


def _has(file: WeightsFile, prefix: str, key: str) -> bool:
    return key in file.shapes or prefix + key in file.shapes


def _yes(text: str) -> bool:
    # ComfyUI's keys are there or not; as metadata they may be empty.
    return text.strip().lower() in ("true", "1", "yes")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(float(a) - float(b)) <= 1e-6
    return bool(a == b)
