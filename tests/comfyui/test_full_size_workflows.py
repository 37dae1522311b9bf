"""The workflows that need the user's files, run over HTTP with narrow files of the real layout.

Two things cannot be narrow in core. Text encoders: the nodes of text give way to saved CONDITIONING. The VAE: a file
of SDXL's own width, with random weights.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from pgp_core.guidance.fresh import write_fresh_guidance

from . import pictures
from .comfy_server import RunFailed, Server
from .full_size_files import placed
from .locate import FULL_SIZE_WORKFLOWS
from .ui_to_prompt import BYPASSED, MUTED, to_prompt
from .workflow_size import canvas_size

WIDTH, HEIGHT, SCALE = 37, 29, 2
#: Steps where two runs are compared; the workflows have 20.
FEW = 4

#: Nodes of text; what hangs on them is replaced.
TEXT = ("CheckpointLoaderSimple", "PrimitiveStringMultiline", "StringConcatenate", "CLIPTextEncodeSDXL", "GetImageSize")

#: Where core's and our loaders look, by their type; the guidance loader finds FaithDiff's file among UNets too.
FOLDERS = {
    "PGPDiffSRLoadModel": {"diffusion_models"},
    "PGPDiffSRLoadGuidance": {"model_patches", "diffusion_models"},
    "CheckpointLoaderSimple": {"checkpoints"},
    "VAELoader": {"vae"},
    "CLIPLoader": {"text_encoders"},
}

#: Names that stand for what training makes: nobody publishes such files.
UNPUBLISHED = {"pgp-diffsr-unet.safetensors", "pgp-diffsr-guidance.safetensors"}


@pytest.fixture(scope="module")
def models(server: Server, full_size_files: Path) -> Iterator[Path]:
    """ComfyUI's models folder with a file for every name, gone afterwards."""
    with placed(full_size_files, server.folder / "models") as folder:
        yield folder


@pytest.fixture
def picture(server: Server, tmp_path: Path) -> torch.Tensor:
    """What LoadImage loads: far from grey, which is what random weights give."""
    x = pictures.smooth(3, HEIGHT, WIDTH) * torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    server.upload(pictures.save(x, tmp_path / "picture.png"), "example.png")
    return x


def _only(prompt: dict[str, Any], kind: str) -> str:
    (found,) = (i for i, n in prompt.items() if n["class_type"] == kind)
    return found


def _prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """As shipped, but for a picture of one's own, twice as large, with saved CONDITIONING in place of text."""
    workflow = copy.deepcopy(workflow)
    for node in workflow["nodes"]:
        if node["type"] == "ImageScaleToMaxDimension":
            # As the note says.
            node["mode"] = BYPASSED
    prompt = to_prompt(workflow, object_info)
    canvas = prompt[_only(prompt, "PGPDiffSRCanvas")]["inputs"]
    assert (canvas["by"], canvas["scale"], canvas["model"]) == ("scale", 4, "sdxl")
    canvas["scale"] = SCALE
    prompt = {i: n for i, n in prompt.items() if n["class_type"] not in TEXT}
    for name in ("positive", "negative"):
        inputs = {"conditioning_name": f"{name}.safetensors"}
        prompt[name] = {"class_type": "PGPDiffSRLoadConditioning", "inputs": inputs}
        prompt[_only(prompt, "KSampler")]["inputs"][name] = [name, 0]
    return prompt


def _short(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The same in a few steps."""
    prompt = _prompt(workflow, object_info)
    prompt[_only(prompt, "KSampler")]["inputs"]["steps"] = FEW
    return prompt


def _result(server: Server, prompt: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
    """The saved picture, and the run's entry in the history."""
    entry = server.run(prompt)
    saver = _only(prompt, "SaveImage")
    (saved,) = entry["outputs"][saver]["images"]
    x = pictures.read(server.picture(saved))
    assert (x.shape[-1], x.shape[-2]) == canvas_size(prompt, saver, (WIDTH, HEIGHT))
    return x, entry


def _cached(entry: dict[str, Any]) -> set[str]:
    return {
        node for event, detail in entry["status"]["messages"] if event == "execution_cached" for node in detail["nodes"]
    }


# -- runs ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("models")
def test_it_restores_a_picture_of_odd_size(
    full_size_workflow: dict[str, Any], object_info: dict[str, Any], server: Server, picture: torch.Tensor
) -> None:
    prompt = _prompt(full_size_workflow, object_info)
    said_before = len(server.log_tail(10**7))
    result, entry = _result(server, prompt)
    assert result.shape == (1, 3, HEIGHT * SCALE, WIDTH * SCALE)
    assert (result.mean((2, 3)) - picture.mean((2, 3))).abs().max() <= 0.05
    compare = entry["outputs"][_only(prompt, "ImageCompare")]
    assert len(compare["a_images"]) == len(compare["b_images"]) == 1

    # Which noise the sampler begins with, and the schedule, are the authors'.
    sampler = prompt[_only(prompt, "KSampler")]["inputs"]
    assert {k: sampler[k] for k in ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")} == {
        "seed": 42, "steps": 20, "cfg": 5.0, "sampler_name": "euler", "scheduler": "ddim_uniform", "denoise": 1.0,
    }  # fmt: skip

    assert _only(prompt, "KSampler") not in _cached(entry)
    again, entry = _result(server, prompt)
    assert _cached(entry) == prompt.keys()
    assert torch.equal(again, result)

    log = server.log_tail(10**7)[said_before:]
    assert [line for line in log.splitlines() if re.search(r"WARNING|ERROR|Traceback|Error|lora key", line)] == []


@pytest.mark.usefixtures("models", "picture")
def test_guidance_and_start_take_part(
    full_size_workflow: dict[str, Any], object_info: dict[str, Any], server: Server
) -> None:
    prompt = _short(full_size_workflow, object_info)
    result, _ = _result(server, prompt)
    for kind, change in {"PGPDiffSRApply": {"strength": 0.0}, "LatentMultiply": {"multiplier": 0.0}}.items():
        other = copy.deepcopy(prompt)
        other[_only(other, kind)]["inputs"].update(change)
        assert not torch.equal(_result(server, other)[0], result), kind


@pytest.mark.usefixtures("models")
def test_the_colours_are_the_colour_fix_s(
    full_size_workflow: dict[str, Any], object_info: dict[str, Any], server: Server, picture: torch.Tensor
) -> None:
    prompt = _prompt(full_size_workflow, object_info)
    prompt[_only(prompt, "PGPDiffSRColorFix")]["inputs"]["method"] = "none"
    result, _ = _result(server, prompt)
    assert (result.mean((2, 3)) - picture.mean((2, 3))).abs().max() > 0.1


@pytest.mark.usefixtures("models", "picture")
def test_pgp_diffsr_can_be_tried_without_trained_files(object_info: dict[str, Any], server: Server) -> None:
    """As its note says: FaithDiff's file with the plan, and fresh guidance, which changes nothing."""
    (path,) = (w for w in FULL_SIZE_WORKFLOWS if w.stem == "pgp-diffsr")
    prompt = _prompt(json.loads(path.read_text(encoding="utf-8")), object_info)
    load, guide = _only(prompt, "PGPDiffSRLoadModel"), _only(prompt, "PGPDiffSRLoadGuidance")
    prompt[load]["inputs"].update(model_name="FaithDiff.bin", plan="pgp-sdxl")
    prompt[guide]["inputs"]["guidance_name"] = "fresh.safetensors"
    file = server.folder / "models" / "model_patches" / "fresh.safetensors"
    write_fresh_guidance(file, model=server.folder / "models" / "diffusion_models" / "FaithDiff.bin")
    try:
        result, entry = _result(server, prompt)
        assert "UNTRAINED" in entry["outputs"][guide]["text"][0]
        prompt[_only(prompt, "PGPDiffSRApply")]["inputs"]["strength"] = 0.0
        assert torch.equal(_result(server, prompt)[0], result)
    finally:
        file.unlink()


@pytest.mark.usefixtures("models", "picture")
def test_another_canvas_takes_the_exact_pixels(
    full_size_workflow: dict[str, Any], object_info: dict[str, Any], server: Server
) -> None:
    prompt = _prompt(full_size_workflow, object_info)
    prompt[_only(prompt, "PGPDiffSRCanvas")]["inputs"].update(by="longest side", pixels=65)
    prompt[_only(prompt, "KSampler")]["inputs"]["steps"] = 1
    (saved,) = server.run(prompt)["outputs"][_only(prompt, "SaveImage")]["images"]
    # 29 * 65 / 37 = 50.9
    assert pictures.read(server.picture(saved)).shape == (1, 3, 51, 65)


# -- the simple node -----------------------------------------------------------------------------------------


def _simple(prompt: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    """A workflow's loaders, and PGP-DiffSR Upscale behind them."""
    kinds = ("LoadImage", "PGPDiffSRLoadModel", "PGPDiffSRLoadGuidance", "VAELoader", "PGPDiffSRLoadConditioning")
    simple = {i: n for i, n in prompt.items() if n["class_type"] in kinds}
    sources = {
        "image": _only(prompt, "LoadImage"),
        "model": _only(prompt, "PGPDiffSRLoadModel"),
        "model_patch": _only(prompt, "PGPDiffSRLoadGuidance"),
        "vae": _only(prompt, "VAELoader"),
        "positive": "positive",
        "negative": "negative",
    }
    values = {"scale": SCALE, "steps": 20, "cfg": 0.0, "strength": 1.0, "seed": 42, "tile": 0, "shared_noise": False}
    links = {name: [node, 0] for name, node in sources.items()}
    chosen = {**links, **values, **inputs}
    simple["upscale"] = {
        "class_type": "PGPDiffSRUpscale",
        "inputs": {name: value for name, value in chosen.items() if value is not None},
    }
    simple["save"] = {"class_type": "SaveImage", "inputs": {"images": ["upscale", 0], "filename_prefix": "simple"}}
    return simple


def _simple_result(server: Server, prompt: dict[str, Any]) -> torch.Tensor:
    (saved,) = server.run(prompt)["outputs"]["save"]["images"]
    return pictures.read(server.picture(saved))


@pytest.mark.usefixtures("models", "picture")
def test_the_simple_node_s_picture_is_the_workflow_s(
    full_size_workflow: dict[str, Any], object_info: dict[str, Any], server: Server
) -> None:
    prompt = _short(full_size_workflow, object_info)
    method = prompt[_only(prompt, "PGPDiffSRColorFix")]["inputs"]["method"]
    result, _ = _result(server, prompt)
    assert torch.equal(_simple_result(server, _simple(prompt, steps=FEW, color_fix=method)), result)


@pytest.mark.usefixtures("models", "picture")
def test_the_simple_node_without_guidance_and_in_one_step(
    full_size_workflow: dict[str, Any], object_info: dict[str, Any], server: Server
) -> None:
    """Without: the command line's start "lq", half of the noise range; one step: timestep 1, without CFG."""
    prompt = _prompt(full_size_workflow, object_info)
    unguided = _simple(prompt, steps=3, color_fix="none", model_patch=None)
    once = _simple(prompt, steps=1, color_fix="none", negative=None)
    # The same by hand.
    by_hand = copy.deepcopy(prompt)
    by_hand[_only(by_hand, "PGPDiffSRColorFix")]["inputs"]["method"] = "none"
    sampler = by_hand[_only(by_hand, "KSampler")]["inputs"]
    (encode,) = (i for i, n in by_hand.items() if n["class_type"] == "VAEEncode")
    guided = sampler["model"]
    sampler.update(steps=3, denoise=0.5, latent_image=[encode, 0], model=[_only(by_hand, "PGPDiffSRLoadModel"), 0])
    assert torch.equal(_simple_result(server, unguided), _result(server, by_hand)[0])
    step = _only(by_hand, "KSampler")
    by_hand["noise"] = {"class_type": "DisableNoise", "inputs": {}}
    by_hand["guider"] = {"class_type": "BasicGuider", "inputs": {"model": guided, "conditioning": ["positive", 0]}}
    by_hand["one"] = {"class_type": "PGPDiffSROneStep", "inputs": {"model": guided, "timestep": 1}}
    by_hand[step] = {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {
            "noise": ["noise", 0],
            "guider": ["guider", 0],
            "sampler": ["one", 0],
            "sigmas": ["one", 1],
            "latent_image": [encode, 0],
        },
    }
    assert torch.equal(_simple_result(server, once), _result(server, by_hand)[0])


# -- files that are not there, or broken ---------------------------------------------------------------------


@pytest.mark.usefixtures("picture")
def test_missing_files_are_said_by_name_and_nothing_of_the_caption_is_asked_for(
    full_size_workflow: dict[str, Any], object_info: dict[str, Any], server: Server
) -> None:
    """ComfyUI checks names before it runs anything; the caption's nodes are muted."""
    for switched_on in (False, True):
        for node in full_size_workflow["nodes"]:
            if switched_on and node["mode"] == MUTED:
                node["mode"] = 0
        with pytest.raises(RunFailed, match="value_not_in_list") as refused:
            server.run(to_prompt(full_size_workflow, object_info))
        missing = set(re.findall(r"'([^']+)' not in ", str(refused.value)))
        expected = {n["widgets_values"][0] for n in full_size_workflow["nodes"] if n["type"] in FOLDERS}
        caption = {n["widgets_values"][0] for n in full_size_workflow["nodes"] if n["type"] == "CLIPLoader"}
        assert caption == {"qwen3vl_4b_fp8_scaled.safetensors"}
        present = {p.name for p in (server.folder / "models").rglob("*") if p.is_file()}
        assert missing == (expected if switched_on else expected - caption) - present


@pytest.mark.usefixtures("models", "picture")
@pytest.mark.parametrize("loader", ["PGPDiffSRLoadModel", "PGPDiffSRLoadGuidance"])
def test_a_broken_file_is_said_on_its_node(
    loader: str, full_size_workflow: dict[str, Any], object_info: dict[str, Any], server: Server
) -> None:
    prompt = _prompt(full_size_workflow, object_info)
    name = "model_name" if loader == "PGPDiffSRLoadModel" else "guidance_name"
    prompt[_only(prompt, loader)]["inputs"][name] = "broken.safetensors"
    with pytest.raises(RunFailed, match=rf"^{loader}: .*CheckpointError: broken\.safetensors is damaged"):
        server.run(prompt)


# -- what the graph says -------------------------------------------------------------------------------------


def test_loaders_carry_name_link_and_folder_of_real_files(full_size_workflow: dict[str, Any], server: Server) -> None:
    """So ComfyUI offers the download; its page follows Hugging Face's links of this form."""
    kinds = set(server.get_json("/models"))
    for node in full_size_workflow["nodes"]:
        entries = node["properties"].get("models", [])
        if node["type"] not in FOLDERS:
            assert not entries, node["type"]
            continue
        chosen = node["widgets_values"][0]
        if chosen in UNPUBLISHED:
            assert not entries
            continue
        (entry,) = entries
        assert entry.keys() == {"name", "url", "directory"}
        assert entry["name"] == chosen
        assert entry["directory"] in FOLDERS[node["type"]] & kinds
        link = urlsplit(entry["url"])
        assert (link.scheme, link.netloc, link.query) == ("https", "huggingface.co", "")
        # A browser saves it under the link's name.
        assert re.fullmatch(rf"/[\w.-]+/[\w.-]+/resolve/main/(?:[\w.-]+/)*{re.escape(chosen)}", link.path)


def test_the_notes_name_every_file_its_folder_and_its_link(full_size_workflow: dict[str, Any]) -> None:
    notes = "\n".join(n["widgets_values"][0] for n in full_size_workflow["nodes"] if n["type"] == "MarkdownNote")
    for node in full_size_workflow["nodes"]:
        if node["type"] not in FOLDERS:
            continue
        assert node["widgets_values"][0] in notes
        for entry in node["properties"].get("models", []):
            assert entry["url"] in notes
            assert entry["directory"] in notes


def test_the_text_is_conditioned_on_the_canvas_s_size(
    full_size_workflow: dict[str, Any], object_info: dict[str, Any]
) -> None:
    """FaithDiff's micro-conditioning: original and target size are the canvas's, nothing is cropped."""
    prompt = to_prompt(full_size_workflow, object_info)
    sampler = prompt[_only(prompt, "KSampler")]["inputs"]
    size = _only(prompt, "GetImageSize")
    assert prompt[size]["inputs"]["image"] == [_only(prompt, "PGPDiffSRCanvas"), 0]
    for name in ("positive", "negative"):
        encode = prompt[sampler[name][0]]
        assert encode["class_type"] == "CLIPTextEncodeSDXL"
        inputs = encode["inputs"]
        assert inputs["clip"] == [_only(prompt, "CheckpointLoaderSimple"), 1]
        assert inputs["width"] == inputs["target_width"] == [size, 0]
        assert inputs["height"] == inputs["target_height"] == [size, 1]
        assert inputs["crop_w"] == inputs["crop_h"] == 0
        assert inputs["text_g"] == inputs["text_l"]
        assert inputs["text_g"] == ("" if name == "negative" else [_only(prompt, "StringConcatenate"), 0])


@pytest.mark.usefixtures("picture")
def test_the_prompt_is_the_text_and_then_the_caption(
    full_size_workflow: dict[str, Any], object_info: dict[str, Any], server: Server
) -> None:
    prompt = to_prompt(full_size_workflow, object_info)
    join, text = _only(prompt, "StringConcatenate"), _only(prompt, "PrimitiveStringMultiline")
    prompt[text]["inputs"]["value"] = "a red door"
    alone = {i: prompt[i] for i in (join, text)} | {
        "show": {"class_type": "PreviewAny", "inputs": {"source": [join, 0]}}
    }
    (said,) = server.run(alone)["outputs"]["show"]["text"]
    assert said.strip() == "a red door"
    # With the caption's nodes switched on its text takes the other place.
    for node in full_size_workflow["nodes"]:
        node["mode"] = 0
    switched_on = to_prompt(full_size_workflow, object_info)
    caption = _only(switched_on, "TextGenerate")
    assert switched_on[join]["inputs"]["string_b"] == [caption, 0]
    assert switched_on[caption]["inputs"]["image"] == [_only(switched_on, "LoadImage"), 0]
    assert switched_on[caption]["inputs"]["sampling_mode"] == "off"
    alone[join]["inputs"]["string_b"] = "It is of oak."
    (said,) = server.run(alone)["outputs"]["show"]["text"]
    assert said == "a red door It is of oak."
