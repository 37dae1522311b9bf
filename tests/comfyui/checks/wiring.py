"""One Step and what people connect to it: core's own nodes around it."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.samplers
import torch
from comfy_extras import nodes_custom_sampler as custom
from comfy_extras import nodes_model_advanced as advanced
from pgp_pack.nodes import comfy_backbone
from pgp_pack.pgp_core.restorers.nano import model as nano_files

from . import scene
from .one_step import TIMESTEP, _direct, _with_s1
from .raised import answers


class _Scene:
    """Nano with S1 and guidance, and a latent to restore."""

    def __init__(self) -> None:
        self.nano = scene.Nano()
        self.picture = scene.pictures(1)
        self.z_l = self.nano.vae.encode(self.picture)
        self.guided = self.nano.guided(self.picture)
        self.model = _with_s1(self.guided)[0]

    def sampled(
        self,
        model: Any = None,
        made_from: Any = None,
        noise: Any = None,
        sigmas: Any = None,
        latent: dict[str, Any] | None = None,
        timestep: int = TIMESTEP,
        cfg: float | None = None,
    ) -> torch.Tensor:
        """Sampler Custom Advanced."""
        model = self.model if model is None else model
        sampler, own = comfy_backbone.one_step_sampler(made_from or model, timestep)
        guider = custom.Guider_Basic(model)
        guider.set_conds(self.nano.positive)
        if cfg is not None:
            guider = comfy.samplers.CFGGuider(model)
            guider.set_conds(self.nano.positive, self.nano.negative)
            guider.set_cfg(cfg)
        noise = custom.Noise_EmptyNoise() if noise is None else noise
        latent = {"samples": self.z_l} if latent is None else latent
        sigmas = own if sigmas is None else sigmas
        out = custom.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent)
        result: torch.Tensor = out.args[0]["samples"]
        return result

    def direct(self, model: Any = None) -> torch.Tensor:
        return _direct(self.nano, self.model if model is None else model, self.z_l)

    def by_sampler_custom(self, add_noise: bool) -> torch.Tensor:
        sampler, sigmas = comfy_backbone.one_step_sampler(self.model, TIMESTEP)
        positive, negative = self.nano.positive, self.nano.negative
        latent = {"samples": self.z_l}
        out = custom.SamplerCustom.execute(self.model, add_noise, 3, 1.0, positive, negative, sampler, sigmas, latent)
        result: torch.Tensor = out.args[0]["samples"]
        return result


def _sampling(name: str, model: Any, **options: Any) -> Any:
    """A MODEL behind one of core's ModelSampling nodes."""
    if name == "continuous V":
        return advanced.ModelSamplingContinuousV().patch(model, "v_prediction", 500.0, 0.03)[0]
    if name.startswith("EDM "):
        return advanced.ModelSamplingContinuousEDM().patch(model, name[4:], 120.0, 0.002)[0]
    if name == "cascade":
        return advanced.ModelSamplingStableCascade().patch(model, 2.0)[0]
    if name == "flow":
        return advanced.ModelSamplingSD3().patch(model, 3.0)[0]
    return advanced.ModelSamplingDiscrete().patch(model, name, options.get("zsnr", False))[0]


#: Where the result is not SDXL's kind of model's at all.
OTHERWISE = (
    "lcm", "img_to_img", "img_to_img_flow", "EDM v_prediction", "EDM edm", "EDM edm_playground_v2.5", "EDM eps",
    "EDM cosmos_rflow", "continuous V", "cascade", "flow",
)  # fmt: skip


def check_right_wires(_out: Path) -> Any:
    """Largest difference from the UNet called by itself."""
    s = _Scene()
    right, base = s.direct(), s.model.model.model_sampling
    scheduled = custom.BasicScheduler.execute(s.model, "normal", 1, 1.0).args[0]
    ones = {"samples": s.z_l, "noise_mask": torch.ones(1, 1, 8, 8)}
    found = {
        "advanced": s.sampled(),
        "Sampler Custom without noise": s.by_sampler_custom(False),
        "made before the LoRA": s.sampled(made_from=s.nano.model),
        "made behind tiles": s.sampled(made_from=comfy_backbone.tile_model(s.model)),
        "tiles behind it": s.sampled(comfy_backbone.tile_model(s.model), made_from=s.model),
        "a mask of ones": s.sampled(latent=ones),
        "another node's sigmas that are the same": s.sampled(sigmas=scheduled),
        "CFG 1": s.sampled(cfg=1.0),
    }
    for kind in ("eps", "v_prediction", "x0"):
        for zsnr in (False, True):
            other = _sampling(kind, s.model, zsnr=zsnr)
            found[f"{kind}, {zsnr} behind it"] = s.sampled(other, made_from=s.model)
            found[f"{kind}, {zsnr} before it"] = s.sampled(other)
    with tempfile.TemporaryDirectory() as folder:
        # As of a file that was saved with its LoRA: nobody can tell.
        shutil.copy(nano_files.FOLDER / nano_files.UNET_FILE, folder)
        unchanged = s.nano.model
        s.nano.model = comfy_backbone.load_unet(str(Path(folder) / nano_files.UNET_FILE))
        own = s.nano.guided(s.picture)
        with scene.Messages() as messages:
            other = s.sampled(own)
        merged = scene.difference(other, s.direct(own))
        s.nano.model = unchanged
    grey = torch.full_like(s.picture, 0.5)
    s.z_l = s.nano.vae.encode(grey)
    on_grey = _with_s1(s.nano.guided(grey))[0]
    results = {k: scene.difference(v, right) for k, v in found.items()}
    results["an even grey, whose latent is zero"] = scene.difference(s.sampled(on_grey), s.direct(on_grey))
    results["a file with S1 in it"] = merged
    return {
        "differences": results,
        "told": [m for m in messages.lines if "S1" in m],
        "zero latent": not bool(s.z_l.any()),
        "left as it was": s.model.model.model_sampling is base,
    }


def check_wrong_wires(_out: Path) -> Any:
    """What each is answered with."""
    s = _Scene()
    zeros = torch.zeros_like(s.z_l)
    schedule = lambda steps, denoise: custom.BasicScheduler.execute(s.model, "normal", steps, denoise).args[0]  # noqa: E731
    own = comfy_backbone.one_step_sampler(s.model, TIMESTEP)[1]
    mask = {"samples": s.z_l, "noise_mask": torch.zeros(1, 1, 8, 8)}
    cases: dict[str, Callable[[], Any]] = {
        "Random Noise": lambda: s.sampled(noise=custom.Noise_RandomNoise(3)),
        "add_noise": lambda: s.by_sampler_custom(True),
        "four steps": lambda: s.sampled(sigmas=schedule(4, 1.0)),
        "denoise 0.5": lambda: s.sampled(sigmas=schedule(1, 0.5)),
        "sigmas cut off": lambda: s.sampled(sigmas=own[:1]),
        "sigmas turned round": lambda: s.sampled(sigmas=own.flip(0)),
        "sigmas that are NaN": lambda: s.sampled(sigmas=own * float("nan")),
        "another family": lambda: s.sampled(_of_other_latents(s.model), made_from=s.model),
        "made from another family": lambda: s.sampled(made_from=_of_other_latents(s.model)),
        "no S1": lambda: s.sampled(s.guided),
        "S1 at another timestep": lambda: s.sampled(timestep=1),
        "empty latent": lambda: s.sampled(latent={"samples": zeros}),
        "empty latent of SDXL": lambda: s.sampled(
            latent={"samples": torch.zeros(1, 4, *s.z_l.shape[2:]), "downscale_ratio_spacial": 4}
        ),
        "another VAE's latent": lambda: s.sampled(latent={"samples": torch.ones(1, 4, *s.z_l.shape[2:])}),
        "a latent with NaN": lambda: s.sampled(latent={"samples": torch.where(s.z_l > 0.5, float("nan"), s.z_l)}),
        "a mask": lambda: s.sampled(latent=mask),
        "CFG NaN": lambda: s.sampled(cfg=float("nan")),
        "timestep 1000": lambda: s.sampled(timestep=1000),
        "pixel NaN": lambda: comfy_backbone.one_step_sampler(s.model, TIMESTEP, s.guided, float("nan")),
    }
    for name in OTHERWISE:
        other = _sampling(name, s.model)
        cases[f"{name} before it"] = lambda other=other: s.sampled(other)
        if "playground" in name:
            # Its latents have other channels: core ends before the sampler.
            continue
        cases[f"{name} behind it"] = lambda other=other: s.sampled(other, made_from=s.model)
    said = answers(cases)
    # Whatever was refused has left nothing behind.
    return {"answers": said, "afterwards": scene.difference(s.sampled(), s.direct())}


def check_one_step_overflow(_out: Path) -> Any:
    """A model whose half precision overflows, and one that is broken; without tiles."""
    s = _Scene()
    right = s.direct()
    half = comfy_backbone.load_unet(str(nano_files.FOLDER / nano_files.UNET_FILE), {"dtype": torch.float16})
    s.nano.model = half
    guided = _with_s1(s.nano.guided(s.picture))[0]
    dtypes: list[str] = []

    def overflowing(apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        base = apply_model.__self__
        dtypes.append(str(base.get_dtype_inference()))
        out: torch.Tensor = apply_model(args["input"], args["timestep"], **args["c"])
        return out * float("inf") if base.get_dtype_inference() != torch.float32 else out

    base = half.model
    base.manual_cast_dtype = torch.float16
    guided.set_model_unet_function_wrapper(overflowing)
    with scene.Messages() as messages:
        found = s.sampled(guided)
    broken = _with_s1(s.guided)[0]
    broken.set_model_unet_function_wrapper(
        lambda apply, args: apply(args["input"], args["timestep"], **args["c"]) * float("nan")
    )
    answer = answers({"": lambda: s.sampled(broken)})[""]
    return {
        "dtypes": dtypes,
        "told": [m for m in messages.lines if "overflow" in m],
        "difference": scene.difference(found, right),
        "afterwards": str(base.get_dtype_inference()),
        "broken": answer,
    }


def _of_other_latents(model: Any) -> Any:
    """The MODEL as one of another family."""
    other = model.clone()
    other.model = copy.copy(model.model)
    other.model.latent_format = comfy.latent_formats.SDXL()
    return other
