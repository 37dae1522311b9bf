"""The simple node, over HTTP, against the shipped workflows: the same picture, bit for bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from pgp_core.images.sizes import Size
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale
from pgp_core.sampling.options import SampleOptions

from . import pictures
from .comfy_server import RunFailed, Server
from .locate import PACK
from .ui_to_prompt import BYPASSED, to_prompt

WIDTH, HEIGHT = 23, 17

DEFAULTS = {
    "scale": 4.0,
    "steps": 1,
    "cfg": 0.0,
    "strength": 1.0,
    "seed": 0,
    "tile": 0,
    "color_fix": "wavelet",
    "shared_noise": False,
}


@pytest.fixture(scope="module", autouse=True)
def picture(server: Server, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """``upscaled.png`` in ComfyUI's input folder."""
    x = pictures.smooth(5, HEIGHT, WIDTH)
    server.upload(pictures.save(x, tmp_path_factory.mktemp("lq") / "lq.png"), "upscaled.png")
    return x


def _prompt(**inputs: Any) -> dict[str, Any]:
    return {
        "load": {"class_type": "LoadImage", "inputs": {"image": "upscaled.png"}},
        "upscale": {"class_type": "PGPDiffSRUpscale", "inputs": {"image": ["load", 0], **DEFAULTS, **inputs}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["upscale", 0], "filename_prefix": "simple"}},
    }


def _result(server: Server, prompt: dict[str, Any]) -> torch.Tensor:
    """All saved pictures, ``(B, 3, H, W)``."""
    (saver,) = (i for i, n in prompt.items() if n["class_type"] == "SaveImage")
    saved = server.run(prompt)["outputs"][saver]["images"]
    return torch.cat([pictures.read(server.picture(s)) for s in saved])


def _workflow(name: str, object_info: dict[str, Any]) -> dict[str, Any]:
    workflow = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if node["type"] == "ImageScaleToMaxDimension":
            # As the note says for a picture of one's own.
            node["mode"] = BYPASSED
    prompt = to_prompt(workflow, object_info)
    next(n for n in prompt.values() if n["class_type"] == "LoadImage")["inputs"]["image"] = "upscaled.png"
    return prompt


def _set(prompt: dict[str, Any], kind: str, **values: Any) -> None:
    (inputs,) = (n["inputs"] for n in prompt.values() if n["class_type"] == kind)
    assert values.keys() <= inputs.keys()
    inputs.update(values)


# -- the same as the workflows ---------------------------------------------------------------------------------


def test_one_step_is_the_workflow_s(object_info: dict[str, Any], server: Server) -> None:
    ours = _result(server, _prompt())
    assert ours.shape == (1, 3, HEIGHT * 4, WIDTH * 4)
    assert torch.equal(ours, _result(server, _workflow("upscale-nano-s1", object_info)))


def test_steps_are_the_workflow_s(object_info: dict[str, Any], server: Server) -> None:
    """With the workflow's values, CFG by 0 and by name, and with others."""
    workflow = _workflow("upscale-nano", object_info)
    (sampler,) = (n["inputs"] for n in workflow.values() if n["class_type"] == "KSampler")
    theirs = _result(server, workflow)
    for cfg in (0.0, sampler["cfg"]):
        assert torch.equal(_result(server, _prompt(steps=sampler["steps"], seed=sampler["seed"], cfg=cfg)), theirs)
    _set(workflow, "KSampler", steps=4, cfg=1.5, seed=11)
    _set(workflow, "PGPDiffSRApply", strength=0.5)
    _set(workflow, "PGPDiffSRCanvas", scale=2.5)
    _set(workflow, "PGPDiffSRColorFix", method="adain")
    ours = _prompt(steps=4, cfg=1.5, seed=11, strength=0.5, scale=2.5, color_fix="adain")
    assert torch.equal(_result(server, ours), _result(server, workflow))


def test_nano_s_own_parts_connected_are_nano(server: Server) -> None:
    """With the S1 LoRA on its MODEL: what the node does by itself."""
    parts = {"model": ["s1", 0], **{k: ["nano", i] for i, k in enumerate(("model_patch", "vae", "positive"), 1)}}
    prompt = _prompt(**parts)
    prompt["nano"] = {"class_type": "PGPDiffSRLoadNano", "inputs": {}}
    lora = {"model": ["nano", 0], "lora_name": "pgp-nano-s1.safetensors", "strength_model": 1.0}
    prompt["s1"] = {"class_type": "LoraLoaderModelOnly", "inputs": lora}
    assert torch.equal(_result(server, prompt), _result(server, _prompt()))
    prompt["upscale"]["inputs"]["model"] = ["nano", 0]
    with pytest.raises(RunFailed, match=r"^PGPDiffSRUpscale: .*nano takes one step with its S1 LoRA only"):
        server.run(prompt)


def test_a_texture_repeats_as_on_the_command_line(server: Server, picture: torch.Tensor) -> None:
    """Sides that are no multiple of 32, in one step and with noise."""
    for steps in (1, 2):
        pipeline = NanoRestorer.load(one_step=steps == 1)
        options = SampleOptions(steps, 1.0 if steps == 1 else pipeline.recipe.cfg, 3)
        expected = upscale(pipeline, picture, Size(scale=4), options, wrap="both")
        found = _result(server, _prompt(steps=steps, seed=3, wrap="both"))
        # Half a level in the picture that was saved, magnified a little, and half a level in the result.
        assert float((found - expected).abs().max()) <= 2 / 255
    assert float((_result(server, _prompt()) - _result(server, _prompt(wrap="both"))).abs().max()) > 5 / 255


# -- batches, alpha ------------------------------------------------------------------------------------------


def _batch(prompt: dict[str, Any], n: int) -> dict[str, Any]:
    prompt["batch"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["load", 0], "amount": n}}
    prompt["upscale"]["inputs"]["image"] = ["batch", 0]
    return prompt


def test_what_stands_still_does_not_boil(server: Server) -> None:
    """A static clip: one noise, identical frames, each what it is alone; else each frame has its own noise."""
    still = _result(server, _batch(_prompt(steps=3, shared_noise=True), 3))
    assert len(still) == 3
    assert torch.equal(still[0], still[1]) and torch.equal(still[0], still[2])
    assert (still[0] - _result(server, _prompt(steps=3))[0]).abs().max() <= 1 / 255 + 1e-6
    boiling = _result(server, _batch(_prompt(steps=3, shared_noise=False), 3))
    assert not torch.equal(boiling[0], boiling[1])
    assert not torch.equal(boiling[1], boiling[2])


def test_pictures_one_by_one_are_each_what_they_are_alone(server: Server) -> None:
    """Core's Rebatch Images gives a list."""
    prompt = _batch(_prompt(steps=2), 2)
    prompt["rebatch"] = {"class_type": "RebatchImages", "inputs": {"images": ["batch", 0], "batch_size": 1}}
    prompt["upscale"]["inputs"]["image"] = ["rebatch", 0]
    both = _result(server, prompt)
    alone = _result(server, _prompt(steps=2))
    assert len(both) == 2
    assert all(torch.equal(one, alone[0]) for one in both)


def test_alpha_comes_along(server: Server) -> None:
    prompt = _prompt(scale=2.0)
    prompt["mask"] = {"class_type": "SolidMask", "inputs": {"value": 0.25, "width": WIDTH, "height": HEIGHT}}
    prompt["join"] = {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["load", 0], "alpha": ["mask", 0]}}
    prompt["upscale"]["inputs"]["image"] = ["join", 0]
    prompt["split"] = {"class_type": "SplitImageWithAlpha", "inputs": {"image": ["upscale", 0]}}
    prompt["show"] = {"class_type": "MaskToImage", "inputs": {"mask": ["split", 1]}}
    prompt["save"]["inputs"]["images"] = ["show", 0]
    alpha = _result(server, prompt)
    assert alpha.shape == (1, 3, HEIGHT * 2, WIDTH * 2)
    assert (alpha - 0.25).abs().max() <= 1.5 / 255


# -- the cache -----------------------------------------------------------------------------------------------


def _ran(server: Server, prompt: dict[str, Any]) -> set[str]:
    """Nodes of the prompt that ran, and whether a sampler did."""
    before = len(server.log_tail(10**8))
    entry = server.run(prompt)
    cached = {n for event, d in entry["status"]["messages"] if event == "execution_cached" for n in d["nodes"]}
    sampled = "it/s]" in server.log_tail(10**8)[before:] or "s/it]" in server.log_tail(10**8)[before:]
    return {*(prompt.keys() - cached), *(["a sampler"] if sampled else [])}


def test_what_has_not_changed_is_not_run_again(server: Server) -> None:
    prompt = _prompt(steps=3, seed=77)
    assert "a sampler" in _ran(server, prompt)
    # The colour fix comes after the sampler.
    prompt["upscale"]["inputs"]["color_fix"] = "none"
    assert _ran(server, prompt) == {"upscale", "save"}
    prompt["upscale"]["inputs"]["seed"] = 78
    assert _ran(server, prompt) == {"upscale", "save", "a sampler"}
    assert _ran(server, prompt) == set()


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"vae": 2}, "vae without model: connect the MODEL too, or none of them for nano"),
        ({"model_patch": 1, "positive": 3}, "model_patch and positive without model"),
        ({"model": 0, "steps": 4}, r"connect its vae and positive too \(steps and CFG 1 need them\)"),
        ({"model": 0, "vae": 2, "positive": 3, "steps": 4, "cfg": 3.0}, "negative too .* or set cfg to 1"),
    ],
)
def test_what_is_not_connected_is_said(inputs: dict[str, Any], message: str, server: Server) -> None:
    numbers = {"steps", "cfg"}
    prompt = _prompt(**{k: v if k in numbers else ["nano", v] for k, v in inputs.items()})
    prompt["nano"] = {"class_type": "PGPDiffSRLoadNano", "inputs": {}}
    with pytest.raises(RunFailed, match=rf"^PGPDiffSRUpscale: .*PGPError: PGP-DiffSR Upscale: .*{message}"):
        server.run(prompt)


def test_a_guided_model_is_refused_and_errors_inside_are_the_node_s(server: Server) -> None:
    nano = {k: ["nano", i] for i, k in enumerate(("model", "model_patch", "vae", "positive", "negative"))}
    prompt = _prompt(steps=2, **nano)
    prompt["nano"] = {"class_type": "PGPDiffSRLoadNano", "inputs": {}}
    apply = {"model": ["nano", 0], "model_patch": ["nano", 1], "image": ["load", 0]}
    apply |= {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    prompt["apply"] = {"class_type": "PGPDiffSRApply", "inputs": apply}
    prompt["upscale"]["inputs"]["model"] = ["apply", 0]
    # Said by the node inside, of the input that both have.
    with pytest.raises(RunFailed, match=r"^PGPDiffSRUpscale: .*Apply PGP-DiffSR: this MODEL is guided already"):
        server.run(prompt)
    del prompt["upscale"]["inputs"]["model_patch"]
    with pytest.raises(RunFailed, match=r"^PGPDiffSRUpscale: .*connect the unguided MODEL, and its guidance"):
        server.run(prompt)


def test_too_large_a_result_is_said(server: Server) -> None:
    prompt = _prompt(scale=8.0)
    size = {"width": 3000, "height": 8, "upscale_method": "nearest-exact", "crop": "disabled"}
    prompt["big"] = {"class_type": "ImageScale", "inputs": {"image": ["load", 0], **size}}
    prompt["upscale"]["inputs"]["image"] = ["big", 0]
    with pytest.raises(RunFailed, match=r"^PGPDiffSRUpscale: .*3000x8 would become 24000x64; 16384 pixels"):
        server.run(prompt)
