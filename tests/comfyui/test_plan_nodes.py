"""Plans, saving and loading through the nodes, over HTTP, on nano."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pgp_core.unet.plan import PrunePlan, StackPlan

from .comfy_server import RunFailed, Server

#: Nano's own plan keeps block 0 of these; one of them goes too.
TIGHTER = {"down_blocks.1.attentions.0": StackPlan(2, ()), "up_blocks.1.attentions.2": StackPlan(2, (1,))}


def _sampled(model: list[Any], name: str) -> dict[str, Any]:
    sampler = {"seed": 3, "steps": 2, "cfg": 1.5, "sampler_name": "euler", "scheduler": "ddim_uniform", "denoise": 1.0}
    save = {"samples": ["sample", 0], "filename_prefix": f"plans/{name}/l"}
    links = {"model": model, "positive": ["nano", 3], "negative": ["nano", 4], "latent_image": ["empty", 0]}
    return {
        "nano": {"class_type": "PGPDiffSRLoadNano", "inputs": {}},
        "gray": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 8421504}},
        "empty": {"class_type": "VAEEncode", "inputs": {"pixels": ["gray", 0], "vae": ["nano", 2]}},
        "sample": {"class_type": "KSampler", "inputs": {**sampler, **links}},
        "latent": {"class_type": "SaveLatent", "inputs": save},
    }


def _latent(server: Server, prompt: dict[str, Any], name: str) -> tuple[torch.Tensor, dict[str, Any]]:
    outputs = server.run(prompt)["outputs"]
    (file,) = (server.folder / "output" / "plans" / name).glob("*.latent")
    return load_file(file)["latent_tensor"], outputs


def _options(server: Server, node: str, name: str) -> list[str]:
    entry = server.get_json(f"/object_info/{node}")[node]["input"]["required"][name]
    found: list[str] = entry[1]["options"] if isinstance(entry[1], dict) and "options" in entry[1] else entry[0]
    return [n.replace("\\", "/") for n in found]


def test_a_plan_on_a_model_saved_and_loaded_again(server: Server) -> None:
    folder = server.folder / "output" / "pgp_plans"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tighter plan ü.json").write_text(PrunePlan("tighter", "pgp-nano", TIGHTER).dumps(), encoding="utf-8")
    plan_name = "tighter plan ü.json"
    assert plan_name in _options(server, "PGPDiffSRLoadPlan", "plan_name")
    assert plan_name in _options(server, "PGPDiffSRLoadModel", "plan")

    whole, _ = _latent(server, _sampled(["nano", 0], "whole"), "whole")
    prompt = _sampled(["apply", 0], "applied")
    prompt |= {
        "plan": {"class_type": "PGPDiffSRLoadPlan", "inputs": {"plan_name": plan_name}},
        "apply": {"class_type": "PGPDiffSRApplyPlan", "inputs": {"model": ["nano", 0], "plan": ["plan", 0]}},
        "save": {
            "class_type": "PGPDiffSRSaveModel",
            "inputs": {"model": ["apply", 0], "filename_prefix": "diffusion_models/nano tighter"},
        },
    }
    applied, outputs = _latent(server, prompt, "applied")
    assert not torch.equal(applied, whole)
    assert "2 of 17 transformer blocks" in outputs["apply"]["text"][0]
    (told,) = outputs["save"]["text"]
    saved, loader = told.split("\n", 1)
    assert "Load PGP-DiffSR Model" in loader
    path = server.folder / "output" / saved
    with safe_open(path, "pt") as f:
        metadata = f.metadata()
    assert json.loads(metadata["pgp.plan"])["name"] == "tighter"
    assert json.loads(metadata["prompt"])["save"]["class_type"] == "PGPDiffSRSaveModel"
    name = saved.replace("\\", "/").removeprefix("diffusion_models/")
    assert name in _options(server, "PGPDiffSRLoadModel", "model_name")

    load = {"model_name": str(Path(name)), "plan": "none", "weight_dtype": "default"}
    prompt = _sampled(["load", 0], "loaded") | {"load": {"class_type": "PGPDiffSRLoadModel", "inputs": load}}
    assert torch.equal(_latent(server, prompt, "loaded")[0], applied)
    # The base is unharmed: the same prompt as the first, sampled anew under another name.
    assert torch.equal(_latent(server, _sampled(["nano", 0], "whole again"), "whole again")[0], whole)

    # The preset keeps what the saved file no longer has.
    with pytest.raises(RunFailed, match=r"PlanError.*keeps block 0 of down_blocks\.1\.attentions\.0"):
        server.run(prompt | {"load": {"class_type": "PGPDiffSRLoadModel", "inputs": {**load, "plan": "pgp-nano"}}})


def test_guidance_of_another_plan_is_said_on_the_node_that_brings_them_together(server: Server) -> None:
    folder = server.folder / "output" / "pgp_plans"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tighter.json").write_text(PrunePlan("tighter", "pgp-nano", TIGHTER).dumps(), encoding="utf-8")
    guide = {
        "model_patch": ["nano", 1],
        "image": ["gray", 0],
        "strength": 1.0,
        "start_percent": 0.0,
        "end_percent": 1.0,
    }
    plan = {"class_type": "PGPDiffSRLoadPlan", "inputs": {"plan_name": "tighter.json"}}
    texts = {}
    for name, first in (("before", "plan"), ("behind", "guide")):
        links: dict[str, list[Any]] = {"plan": ["nano", 0], "guide": ["nano", 0]}
        links["guide" if first == "plan" else "plan"] = [first, 0]
        prompt = _sampled(["guide" if first == "plan" else "plan", 0], name) | {
            "file": plan,
            "plan": {"class_type": "PGPDiffSRApplyPlan", "inputs": {"model": links["plan"], "plan": ["file", 0]}},
            "guide": {"class_type": "PGPDiffSRApply", "inputs": {"model": links["guide"], **guide}},
        }
        texts[name] = {k: v.get("text", [""])[0] for k, v in server.run(prompt)["outputs"].items() if k in links}
    said = "it was trained with plan pgp-nano, the model has other blocks"
    assert said in texts["before"]["guide"] and said not in texts["before"]["plan"]
    assert said in texts["behind"]["plan"] and "guide" not in texts["behind"], "its own plan is no news"


def test_presets_of_another_family_are_refused(server: Server) -> None:
    prompt = _sampled(["apply", 0], "refused") | {
        "plan": {"class_type": "PGPDiffSRPlanPreset", "inputs": {"name": "pgp-sdxl"}},
        "apply": {"class_type": "PGPDiffSRApplyPlan", "inputs": {"model": ["nano", 0], "plan": ["plan", 0]}},
    }
    with pytest.raises(RunFailed, match="PlanError"):
        server.run(prompt)


@pytest.mark.parametrize("prefix", ["../outside", "/tmp/outside"])
def test_models_are_saved_below_the_output_folder_only(prefix: str, server: Server) -> None:
    prompt = _sampled(["nano", 0], "x") | {
        "save": {"class_type": "PGPDiffSRSaveModel", "inputs": {"model": ["nano", 0], "filename_prefix": prefix}}
    }
    with pytest.raises(RunFailed, match=r"^PGPDiffSRSaveModel: .*CheckpointError: .*output folder: choose a name"):
        server.run(prompt)
