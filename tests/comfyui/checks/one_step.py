"""One step through core's SamplerCustomAdvanced path, with the S1 LoRA by core's loader."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.sd
import comfy.utils
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.pgp_core import nano as nano_files
from pgp_pack.pgp_core.errors import PGPError
from safetensors import safe_open
from safetensors.torch import save_file

from . import scene

TIMESTEP = nano_files.S1_TIMESTEP


def check_one_step(out: Path) -> Any:
    nano = scene.Nano()
    image = scene.pictures(1, batch=2)
    messages = _Messages()
    with messages:
        model, layers = _with_s1(nano.guided(image))
    z_l = nano.vae.encode(image)
    z_h = _sample(nano, model, z_l)
    scene.save(out, image=image, z_h=z_h, **nano.peam_weights())
    return {
        "layers in the file": layers,
        "layers patched": len(model.patches),
        "not loaded": [m for m in messages.lines if "not loaded" in m.lower()],
        "from the direct call": scene.difference(z_h, _direct(nano, model, z_l)),
        "changes": scene.difference(z_h, z_l),
    }


def check_one_step_with_guidance_before_lora(_out: Path) -> Any:
    """Core's LoRA loader may stand before or behind Apply PGP-DiffSR."""
    nano = scene.Nano()
    image = scene.pictures(1)
    z_l = nano.vae.encode(image)
    behind = _sample(nano, _with_s1(nano.guided(image))[0], z_l)
    nano.model = _with_s1(nano.model)[0]
    before = _sample(nano, nano.guided(image), z_l)
    return {"difference": scene.difference(behind, before)}


def check_one_step_of_every_prediction(_out: Path) -> Any:
    """SDXL predicts noise. Nano's weights say otherwise, but the arithmetic is the same for any weights."""
    results = {}
    image = scene.pictures(1)
    for prediction in ("epsilon", "v_prediction", "sample"):
        nano = scene.Nano()
        with tempfile.TemporaryDirectory() as folder:
            nano.model = comfy_backbone.load_unet(str(_with_prediction(prediction, Path(folder))))
            model = nano.guided(image)
            z_l = nano.vae.encode(image)
            results[prediction] = scene.difference(_sample(nano, model, z_l), _direct(nano, model, z_l))
    return results


def check_noise_mask(_out: Path) -> Any:
    nano = scene.Nano()
    image = scene.pictures(1)
    try:
        _sample(nano, nano.guided(image), nano.vae.encode(image), noise_mask=torch.ones(1, 1, 8, 8))
    except PGPError as e:
        return {"message": str(e)}
    return {"message": None}


def _with_s1(model: Any) -> tuple[Any, int]:
    """A MODEL with the S1 LoRA as the node LoraLoaderModelOnly puts it there, and the file's layers."""
    lora = comfy.utils.load_torch_file(str(nano_files.FOLDER / nano_files.S1_FILE), safe_load=True)
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    return patched, sum(k.endswith(".lora_up.weight") for k in lora)


def _sample(nano: Any, model: Any, z_l: torch.Tensor, noise_mask: torch.Tensor | None = None) -> torch.Tensor:
    """SamplerCustomAdvanced with DisableNoise and BasicGuider."""
    sampler, sigmas = comfy_backbone.one_step_sampler(model, TIMESTEP)
    # fmt: off
    result: torch.Tensor = comfy.sample.sample_custom(
        model, torch.zeros_like(z_l), 1.0, sampler, sigmas, nano.positive, nano.positive, z_l,
        noise_mask=noise_mask, disable_pbar=True, seed=0,
    )
    # fmt: on
    return result


def _direct(nano: Any, model: Any, z_l: torch.Tensor) -> torch.Tensor:
    """``z_L - UNet(z_L, t)`` by calling the UNet itself, in the latent's own scale."""
    comfy.model_management.load_models_gpu([model])
    context, extra = nano.positive[0]
    batch = z_l.shape[0]
    sizes = {k: v for k, v in extra.items() if k != "pooled_output"}
    y = model.model.encode_adm(pooled_output=extra["pooled_output"], device=z_l.device, **sizes)
    options = {
        "patches": model.model_options["transformer_options"]["patches"],
        "cond_or_uncond": [0],
        "sigmas": torch.ones(batch),
    }
    unet = model.model.diffusion_model
    x = z_l * nano_files.SCALE
    out = unet(
        x,
        timesteps=torch.full((batch,), float(TIMESTEP)),
        context=context.expand(batch, -1, -1),
        y=y.expand(batch, -1),
        transformer_options=options,
    )
    scene.patch_of(model).cleanup()
    return (x - out) / nano_files.SCALE


def _with_prediction(prediction: str, folder: Path) -> Path:
    """Nano's UNet file with another prediction in its metadata."""
    source = nano_files.FOLDER / nano_files.UNET_FILE
    with safe_open(str(source), framework="pt") as f:
        tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
        metadata = dict(f.metadata())
    metadata["pgp.model"] = json.dumps({**json.loads(metadata["pgp.model"]), "prediction": prediction})
    save_file(tensors, str(folder / source.name), metadata)
    return folder / source.name


class _Messages(logging.Handler):
    """What is logged meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> _Messages:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: Any) -> None:
        logging.getLogger().removeHandler(self)
