"""One step through core's SamplerCustomAdvanced path, with the S1 LoRA by core's loader."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import comfy.sample
import torch
from comfy_extras.nodes_custom_sampler import Guider_Basic
from pgp_pack.nodes import comfy_backbone
from pgp_pack.pgp_core.errors import PGPError
from pgp_pack.pgp_core.restorers.nano import model as nano_files
from safetensors import safe_open
from safetensors.torch import save_file

from . import scene

TIMESTEP = nano_files.S1_TIMESTEP


def check_one_step(out: Path) -> Any:
    nano = scene.Nano()
    image = scene.pictures(1, batch=2)
    model, loaded = _with_s1(nano.guided(image))
    z_l = nano.vae.encode(image)
    z_h = _sample(nano, model, z_l)
    scene.save(out, image=image, z_h=z_h, **nano.peam_weights())
    return {
        **loaded,
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


def check_model_s_own(_out: Path) -> Any:
    """What a MODEL carries through clones and guidance, and the timestep and rule that One Step takes of it."""
    nano = scene.Nano()
    image = scene.pictures(1)
    guided = nano.guided(image)
    model, _ = _with_s1(guided)
    z_l = nano.vae.encode(image)
    (own, own_sigmas), (_, sigmas) = (comfy_backbone.one_step_sampler(model, t) for t in (None, TIMESTEP))
    guider = Guider_Basic(model)
    guider.set_conds(nano.positive)
    z_h = guider.sample(torch.zeros_like(z_l), z_l, own, own_sigmas, disable_pbar=True, seed=0).to(z_l)
    records = {"nano": nano.model, "a clone": nano.model.clone(), "guided": guided, "with a LoRA": model}
    return {
        "difference": scene.difference(z_h, _sample(nano, model, z_l, basic=True)),
        "sigmas": own_sigmas.tolist() == sigmas.tolist(),
        "families": {name: comfy_backbone.record_of(m).family.name for name, m in records.items()},
    }


def check_noise_mask(_out: Path) -> Any:
    nano = scene.Nano()
    image = scene.pictures(1)
    try:
        _sample(nano, nano.guided(image), nano.vae.encode(image), noise_mask=torch.zeros(1, 1, 8, 8))
    except PGPError as e:
        return {"message": str(e)}
    return {"message": None}


def check_lora_by_peft(out: Path) -> Any:
    """A LoRA by PEFT, of every kind of layer that training adapts, through core's loader."""
    nano = scene.Nano()
    model, loaded = scene.with_lora(nano.model, out.parent / "files" / "lora.safetensors")
    x = scene.noise(2)
    result = scene.raw(model, nano.positive, x, TIMESTEP)
    scene.save(out, x=x, output=result)
    return {**loaded, "changes": scene.difference(result, scene.raw(nano.model, nano.positive, x, TIMESTEP))}


def check_dial(out: Path) -> Any:
    """Two LoRAs by core's loaders, weighed by the node."""
    nano = scene.Nano()
    image = scene.pictures(1, batch=2)
    z_l = nano.vae.encode(image)
    pixel, _ = _with_s1(nano.guided(image))
    both, _ = scene.with_lora(pixel, out.parent / "files" / "lora.safetensors")
    one, two = _sample(nano, pixel, z_l), _sample(nano, both, z_l)
    cfg = {"negative": nano.negative, "cfg": 1.5}
    guided = [_sample(nano, m, z_l, **cfg) for m in (pixel, both)]
    features = scene.patch_of(pixel)

    def dial(p: float, s: float, **options: Any) -> torch.Tensor:
        return _sample(nano, both, z_l, pixel_model=pixel, pixel=p, semantic=s, **options)

    def expected(p: float, s: float, results: Any = (one, two)) -> torch.Tensor:
        return z_l - p * (z_l - results[0]) - s * (results[0] - results[1])

    results: dict[str, Any] = {"semantic changes": scene.difference(one, two)}
    results["1, 1 is both"] = torch.equal(dial(1, 1), two)
    results["1, 0 is the pixel LoRA"] = scene.difference(dial(1, 0), one)
    for p, s in ((1.0, 0.5), (0.6, 1.4), (0.0, 1.0), (0.5, 0.5)):
        results[f"{p}, {s}"] = scene.difference(dial(p, s), expected(p, s))
    results["CFG"] = scene.difference(dial(1, 0.5, **cfg), expected(1, 0.5, guided))
    results["BasicGuider"] = scene.difference(dial(1, 0.5, basic=True), expected(1, 0.5))
    results["features dropped"] = features.features is None
    results["both after that"] = torch.equal(_sample(nano, both, z_l), two)
    results["pixel after that"] = torch.equal(_sample(nano, pixel, z_l), one)
    results["merged without pixel_model"] = scene.difference(
        _sample(nano, both, z_l, pixel=0.5, semantic=0.5), expected(0.5, 0.5)
    )
    refused = {}
    for name, arguments in (
        ("no pixel_model", {"semantic": 0.5}),
        ("out of range", {"pixel_model": pixel, "semantic": 11.0}),
        ("another kind", {"pixel_model": _OfAnotherKind(pixel), "semantic": 0.5}),
    ):
        try:
            comfy_backbone.one_step_sampler(both, TIMESTEP, **arguments)
        except PGPError as e:
            refused[name] = str(e)
    return {**results, "refused": refused}


class _OfAnotherKind:
    """A MODEL with the latents of another model."""

    def __init__(self, model: Any):
        self._model = model
        self.model = self

    latent_format = None

    def get_model_object(self, name: str) -> Any:
        return self._model.get_model_object(name)


def _with_s1(model: Any) -> tuple[Any, dict[str, Any]]:
    """A MODEL with the S1 LoRA by core's loader, and what came of it."""
    return scene.with_lora(model, nano_files.FOLDER / nano_files.S1_FILE)


def _sample(
    nano: Any,
    model: Any,
    z_l: torch.Tensor,
    noise_mask: torch.Tensor | None = None,
    negative: Any = None,
    cfg: float = 1.0,
    basic: bool = False,
    **dial: Any,
) -> torch.Tensor:
    """SamplerCustomAdvanced with DisableNoise and BasicGuider, or CFGGuider."""
    sampler, sigmas = comfy_backbone.one_step_sampler(model, TIMESTEP, **dial)
    if basic:
        guider = Guider_Basic(model)
        guider.set_conds(nano.positive)
        out: torch.Tensor = guider.sample(torch.zeros_like(z_l), z_l, sampler, sigmas, disable_pbar=True, seed=0)
        return out.to(z_l)
    # fmt: off
    result: torch.Tensor = comfy.sample.sample_custom(
        model, torch.zeros_like(z_l), cfg, sampler, sigmas, nano.positive, negative or nano.positive, z_l,
        noise_mask=noise_mask, disable_pbar=True, seed=0,
    )
    # fmt: on
    return result


def _direct(nano: Any, model: Any, z_l: torch.Tensor) -> torch.Tensor:
    """``z_L - UNet(z_L, t)`` by calling the UNet itself, in the latent's own scale."""
    x = z_l * nano_files.SCALE
    out = scene.raw(model, nano.positive, x, TIMESTEP, patches=model.model_options["transformer_options"]["patches"])
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
