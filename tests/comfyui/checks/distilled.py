"""What was distilled from SDXL, narrow: sampled, in tiles, recorded, planned, saved; and what core makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_detection
import comfy.sd
import comfy.utils
import folder_paths
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone.model import _unet_config
from pgp_pack.pgp_core.unet.inspect import inspect_unet
from pgp_pack.pgp_core.unet.plan import PrunePlan
from safetensors import safe_open

from . import scene, sdxl


def asked(out: Path) -> dict[str, Any]:
    """What the test wrote: for each name a plan, and the full-size UNet's names and shapes."""
    found: dict[str, Any] = json.loads((sdxl.files(out) / "asked.json").read_text())
    return found


def error(act: Any) -> list[str]:
    try:
        act()
    except Exception as e:
        return [type(e).__name__, str(e)]
    return []


def _other(asked: dict[str, Any], name: str) -> str:
    return next(k for k in asked if k != name)


def _refused(model: Any, plan: Any) -> list[str]:
    return error(lambda: comfy_backbone.apply_plan(model, PrunePlan.from_json(plan)))


def check_distilled(out: Path) -> Any:
    folder_paths.set_output_directory(str(out.parent / "distilled output"))
    results, tensors = {}, {"noise": sdxl.noise(), "image": sdxl.pictures(1)}
    for name, told in asked(out).items():
        plan = PrunePlan.from_json(told["plan"])
        model = sdxl.load(out, f"{name}.safetensors")
        few = {"steps": 4, "cfg": 1.0}
        whole = tensors[f"{name}/whole"] = sdxl.sample(model, **few)
        guidance = comfy_backbone.load_guidance(str(sdxl.files(out) / f"{name}-guidance.safetensors"))
        guided = comfy_backbone.apply_guidance(model, guidance, tensors["image"], 1.0, 0.0, 1.0)
        tensors[f"{name}/guided"] = sdxl.sample(guided, **few)

        from_file = sdxl.load(out, f"{name}.safetensors", plan=plan)
        live, saving = comfy_backbone.apply_plan(model, plan)
        pruned = tensors[f"{name}/pruned"] = sdxl.sample(from_file, **few)
        result: dict[str, Any] = {"live is the file's": torch.equal(sdxl.sample(live, **few), pruned)}
        result["base afterwards"] = torch.equal(sdxl.sample(model, **few), whole)
        result["skipped"] = [saving.skipped, saving.blocks]
        for kind, saved in (("live", live), ("file", from_file)):
            path = comfy_backbone.save_unet(saved, f"diffusion_models/{name}")
            again = comfy_backbone.load_unet(str(path), {"dtype": torch.float32})
            result[f"saved {kind}"] = scene.difference(sdxl.sample(again, **few), pruned)
            ours, theirs = (m.model.diffusion_model.state_dict() for m in (again, from_file))
            result[f"saved {kind}: weights"] = ours.keys() == theirs.keys() and all(
                torch.equal(v, theirs[k]) for k, v in ours.items()
            )
            with safe_open(path, "pt") as f:
                result[f"saved {kind}: metadata"] = f.metadata()
        other = _other(asked(out), name)
        result["another's plan"] = [other, *_refused(model, asked(out)[other]["plan"])]
        foreign = comfy_backbone.load_guidance(str(sdxl.files(out) / f"{other}-guidance.safetensors"))
        result["another's guidance"] = error(
            lambda m=model, g=foreign: comfy_backbone.apply_guidance(m, g, tensors["image"], 1.0, 0.0, 1.0)
        )

        recorded, recording = comfy_backbone.record(from_file)
        result["recording changes nothing"] = torch.equal(sdxl.sample(recorded, **few), pruned)
        report = recording.report().to_json()
        result["report"] = {k: report[k] for k in ("topology", "totals")}
        result["report"]["modules"] = sorted(report["modules"])
        result["report"]["blocks"] = {s: sorted(map(int, b)) for s, b in report["blocks"].items()}

        # Image to image.
        latent = torch.randn(1, 4, sdxl.HEIGHT, sdxl.WIDTH, generator=torch.Generator().manual_seed(4))
        tiled = comfy_backbone.tile_model(guided, tile=64, overlap=32)
        start = {"latent": latent, **few}
        one, tiles = sdxl.sample(guided, **start), sdxl.sample(tiled, **start)
        result["tiles"] = {"finite": bool(tiles.isfinite().all()), "differ": scene.difference(one, tiles)}
        results[name] = result
    scene.save(out, **tensors)
    return results


def check_distilled_in_core(out: Path) -> Any:
    """Core's table, its names for LoRAs, and its own loader, on the full-size UNets' names and shapes."""
    results: dict[str, Any] = {}
    for name, told in asked(out).items():
        sd = {k: torch.empty(v, device="meta", dtype=torch.float16) for k, v in told["shapes"].items()}
        found = comfy.model_detection.detect_unet_config(sd, "")
        with torch.device("meta"):
            model = comfy.sd.load_diffusion_model_state_dict(dict(sd))
        ours = _unet_config(_shape(told["shapes"]))
        names = comfy.utils.unet_to_diffusers(ours)
        loras = set(comfy.lora.model_lora_keys_unet(model.model).values())
        result: dict[str, Any] = {
            "config": type(model.model.model_config).__name__,
            "differ": sorted(k for k in found if k in ours and ours[k] != found[k]),
            "names": {k: v for k, v in names.items() if v in sd},
            "LoRA lacks": sorted(k for k in sd if k.endswith(".weight") and f"diffusion_model.{k}" not in loras),
        }
        # A MODEL that core loaded has no file's metadata.
        _, saving = comfy_backbone.apply_plan(model, PrunePlan.from_json(told["plan"]))
        result["skipped"] = [saving.skipped, saving.blocks]
        other = _other(asked(out), name)
        result["another's plan"] = [other, *_refused(model, asked(out)[other]["plan"])]
        result["read"] = {k: _read(v) for k, v in told["cut"].items()}
        results[name] = result
    return results


def _shape(shapes: dict[str, Any]) -> Any:
    from pgp_pack.pgp_core.files.weights import WeightsFile

    given = {k: tuple(v) for k, v in shapes.items()}
    return inspect_unet(WeightsFile("x", given, frozenset(given), torch.zeros)).shape


def _read(shapes: dict[str, Any]) -> Any:
    """What core's loader makes of a file: its class, and how many weights are left out or lack."""
    sd = {k: torch.empty(v, device="meta", dtype=torch.float16) for k, v in shapes.items()}
    try:
        with torch.device("meta"):
            model = comfy.sd.load_diffusion_model_state_dict(dict(sd))
    except Exception as e:
        return type(e).__name__
    if model is None:
        return "no match"
    there = model.model.diffusion_model.state_dict().keys()
    return [type(model.model.model_config).__name__, len(sd.keys() - there), len(there - sd.keys())]
