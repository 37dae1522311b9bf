"""Models in the layouts in which users have them, and MODELs with every sampling that core's nodes set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy.quant_ops
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy_extras import nodes_model_advanced as advanced
from pgp_pack.nodes import comfy_backbone
from safetensors import safe_open

from .sdxl import _logged, files, sample


def _load(path: Path, **options: Any) -> Any:
    return comfy_backbone.load_unet(str(path), {"dtype": torch.float32, **options})


def _weights(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.model.diffusion_model.state_dict())


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def check_found(out: Path) -> Any:
    """Every UNet in ``found``: whether its weights are the plain one's, how it is sampled, and what was said."""
    plain = _weights(_load(files(out) / "plain.safetensors"))
    results = {}
    for path in sorted((files(out) / "found").rglob("*")):
        if path.suffix not in (".safetensors", ".bin", ".ckpt", ".json") or path.parent.name == "scheduler":
            continue
        with _logged() as lines:
            model = _load(path)
        sampling = model.get_model_object("model_sampling")
        results[path.relative_to(files(out) / "found").as_posix()] = {
            "same": _same(_weights(model), plain),
            "type": model.model.model_type.name,
            "zsnr": bool(sampling.zsnr),
            "said": lines,
        }
    return results


def check_found_by_core_s_reader(out: Path) -> Any:
    """What dynamic VRAM and ``--disable-mmap`` read files by."""
    with replace.object(comfy.utils, "DISABLE_MMAP", True):
        names = ("found/module.safetensors", "found/shards/model.safetensors.index.json", "scaled/old.safetensors")
        loaded = {name: _weights(_load(files(out) / name)) for name in names}
    return {name: _same(w, _weights(_load(files(out) / name))) for name, w in loaded.items()}


def check_found_guidance(out: Path) -> Any:
    """FaithDiff's file under a prefix."""
    plain, other = (
        comfy_backbone.load_guidance(str(files(out) / name)).model.state_dict()
        for name in ("FaithDiff.bin", "FaithDiff-prefixed.bin")
    )
    return {"same": _same(dict(plain), dict(other)), "tensors": len(plain)}


def check_scaled(out: Path) -> Any:
    """fp8 with factors, against core's own reading of it: largest difference relative to the largest weight."""
    results = {}
    for path in sorted((files(out) / "scaled").iterdir()):
        sd, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
        theirs, _ = comfy.utils.convert_old_quants(dict(sd), "", metadata=metadata)
        ours = _weights(_load(path))
        worst, count = 0.0, 0
        for key, value in theirs.items():
            if not key.endswith(".weight_scale"):
                continue
            layer = key.removesuffix(".weight_scale")
            weight = theirs[f"{layer}.weight"]
            layout = comfy.quant_ops.get_layout_class("TensorCoreFP8E4M3Layout")
            params = layout.Params(scale=value, orig_dtype=torch.float32, orig_shape=tuple(weight.shape))
            wanted = comfy.quant_ops.QuantizedTensor(weight, "TensorCoreFP8E4M3Layout", params).dequantize()
            difference = (ours[f"{layer}.weight"] - wanted).abs().max() / wanted.abs().max()
            worst, count = max(worst, float(difference)), count + 1
        results[path.stem] = {"worst": worst, "layers": count}
    return results


def _samplings() -> dict[str, Any]:
    """Core's nodes that change how a MODEL is sampled, as functions of a MODEL."""
    discrete, edm = advanced.ModelSamplingDiscrete(), advanced.ModelSamplingContinuousEDM()
    found: dict[str, Any] = {"none": lambda m: m}
    for kind in discrete.INPUT_TYPES()["required"]["sampling"][0]:
        for zsnr in (False, True):
            found[f"discrete {kind} {zsnr}"] = lambda m, k=kind, z=zsnr: discrete.patch(m, k, z)[0]
    for kind in edm.INPUT_TYPES()["required"]["sampling"][0]:
        found[f"edm {kind}"] = lambda m, k=kind: edm.patch(m, k, 120.0, 0.002)[0]
    found["continuous v"] = lambda m: advanced.ModelSamplingContinuousV().patch(m, "v_prediction", 500.0, 0.03)[0]
    found["cascade"] = lambda m: advanced.ModelSamplingStableCascade().patch(m, 2.0)[0]
    found["sd3"] = lambda m: advanced.ModelSamplingSD3().patch(m, 3.0)[0]
    found["aura"] = lambda m: advanced.ModelSamplingAuraFlow().patch_aura(m, 1.73)[0]
    found["flux"] = lambda m: advanced.ModelSamplingFlux().patch(m, 1.15, 0.5, 1024, 1024)[0]
    return found


def check_saved_samplings(out: Path) -> Any:
    """Each is saved and sampled as before once it is loaded again, or refused."""
    folder_paths.set_output_directory(str(files(out) / "output"))
    base, results = _load(files(out) / "plain.safetensors"), {}
    for name, patch in _samplings().items():
        model = patch(base)
        try:
            path = comfy_backbone.save_unet(model, "diffusion_models/sampling")
        except Exception as e:
            results[name] = {"refused": [type(e).__name__, str(e)]}
            continue
        again = _load(path)
        with safe_open(path, "pt") as f:
            markers = {k: torch.zeros(0) for k in f.keys() if k in ("v_pred", "ztsnr")}  # noqa: SIM118
            about = json.loads(f.metadata()["pgp.model"])
        config = comfy.supported_models.SDXL(dict(model.model.model_config.unet_config))
        core = config.model_type(markers).name, bool(config.sampling_settings.get("zsnr"))
        ours = sample(model, steps=2, cfg=1.0), sample(again, steps=2, cfg=1.0)
        # Mapped weights lie at other addresses than copies, and products of them may be summed in another order.
        difference = float((ours[0] - ours[1]).abs().max() / ours[0].abs().max())
        results[name] = {"difference": difference, "core": core, **about}
        Path(path).unlink()
    return results


def check_not_finite(out: Path) -> Any:
    results = {}
    for path in sorted((files(out) / "broken").iterdir()):
        for dtype in (torch.float32, torch.float16):
            try:
                _load(path, dtype=dtype)
                results[f"{path.stem} {dtype}"] = []
            except Exception as e:
                results[f"{path.stem} {dtype}"] = [type(e).__name__, str(e)]
    return results
