"""The workflows for video, for 4096 pixels, and for any SDXL checkpoint, as shipped but for their size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import distilled
import pytest
import torch
from PIL import Image

from . import clip, pictures
from .comfy_server import Server
from .full_size_files import placed
from .locate import PACK, Comfy
from .ui_to_prompt import BYPASSED, to_prompt

WIDTH, HEIGHT, FRAMES, FPS = 32, 24, 3, 12


def _load(name: str, object_info: dict[str, Any]) -> dict[str, Any]:
    """A workflow, without making its picture small."""
    workflow = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if node["type"] == "ImageScaleToMaxDimension":
            node["mode"] = BYPASSED
    return to_prompt(workflow, object_info)


def _only(prompt: dict[str, Any], kind: str) -> str:
    (found,) = (i for i, n in prompt.items() if n["class_type"] == kind)
    return found


def _pictures(server: Server, prompt: dict[str, Any]) -> torch.Tensor:
    saved = server.run(prompt)["outputs"][_only(prompt, "SaveImage")]["images"]
    return torch.cat([pictures.read(server.picture(s)) for s in saved])


# -- video -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def still_clip(server: Server, comfy: Comfy) -> None:
    """``example.mp4``: the same picture three times."""
    folder = server.folder / "input"
    folder.mkdir(exist_ok=True)
    x = pictures.smooth(9, HEIGHT, WIDTH).expand(FRAMES, -1, -1, -1)
    clip.write(x, folder / "example.mp4", FPS, comfy)


@pytest.mark.usefixtures("still_clip")
def test_a_video_becomes_a_larger_one_of_as_many_frames(
    object_info: dict[str, Any], server: Server, comfy: Comfy
) -> None:
    prompt = _load("upscale-video-nano", object_info)
    entry = server.run(prompt)
    (saved,) = entry["outputs"][_only(prompt, "SaveVideo")]["images"]
    assert saved["filename"].endswith(".mp4")
    name = f"{saved['subfolder']}/{saved['filename']} [output]"
    again = {
        "load": {"class_type": "LoadVideo", "inputs": {"file": name}},
        "parts": {"class_type": "GetVideoComponents", "inputs": {"video": ["load", 0]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["parts", 0], "filename_prefix": "frames"}},
        "fps": {"class_type": "PreviewAny", "inputs": {"source": ["parts", 2]}},
    }
    entry = server.run(again)
    frames = entry["outputs"]["save"]["images"]
    assert len(frames) == FRAMES
    assert pictures.read(server.picture(frames[0])).shape == (1, 3, HEIGHT * 4, WIDTH * 4)
    assert float(entry["outputs"]["fps"]["text"][0]) == FPS


@pytest.mark.usefixtures("still_clip")
def test_a_still_clip_stands_still_by_shared_noise(object_info: dict[str, Any], server: Server) -> None:
    prompt = _load("upscale-video-nano", object_info)
    upscale, saver = _only(prompt, "PGPDiffSRUpscale"), _only(prompt, "SaveVideo")
    assert prompt[upscale]["inputs"]["shared_noise"] is True
    del prompt[saver]
    prompt["save"] = {"class_type": "SaveImage", "inputs": {"images": [upscale, 0], "filename_prefix": "still"}}
    prompt[upscale]["inputs"]["steps"] = 3
    shared = _pictures(server, prompt)
    assert len(shared) == FRAMES
    assert all(torch.equal(frame, shared[0]) for frame in shared)
    prompt[upscale]["inputs"]["shared_noise"] = False
    boiling = _pictures(server, prompt)
    assert not torch.equal(boiling[0], boiling[1])
    assert not torch.equal(boiling[1], boiling[2])


# -- 4096 pixels -----------------------------------------------------------------------------------------------


def test_tiles_make_what_one_call_makes(object_info: dict[str, Any], server: Server, tmp_path: Path) -> None:
    """At 192 pixels instead of 4096, in tiles of 96: nearly what the model makes of the whole picture."""
    server.upload(pictures.save(pictures.smooth(4, 31, 48), tmp_path / "p.png"), "example.png")
    prompt = _load("upscale-4k-nano", object_info)
    canvas, tiling = (prompt[_only(prompt, kind)]["inputs"] for kind in ("PGPDiffSRCanvas", "PGPDiffSRTiling"))
    assert (canvas["by"], canvas["pixels"], tiling["tile"]) == ("longest side", 4096, 512)
    canvas["pixels"] = 192
    tiling.update(tile=96, overlap=48)
    in_tiles = _pictures(server, prompt)
    tiling["tile"] = 0
    whole = _pictures(server, prompt)
    assert in_tiles.shape == whole.shape == (1, 3, 124, 192)
    assert not torch.equal(in_tiles, whole)
    # A tile's border is seen by the model; nano's own change to the enlarged picture is far larger than that.
    assert (in_tiles - whole).abs().mean() <= 2 / 255


# -- any SDXL --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sdxl", "ssd-1b", "koala-700m"])
def test_any_sdxl_restores_without_guidance(
    kind: str, object_info: dict[str, Any], server: Server, full_size_files: Path, tmp_path: Path
) -> None:
    """A narrow UNet with random weights, for core's loader knows SDXL by its width: loaded by ours, the VAE by core.

    What was distilled from it is done in tiles, and as Turbo and Lightning are: in four steps, without CFG.
    """
    x = pictures.smooth(3, 29, 37) * torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    server.upload(pictures.save(x, tmp_path / "p.png"), "example.png")
    prompt = _load("upscale-any-sdxl", object_info)
    loader = _only(prompt, "CheckpointLoaderSimple")
    sampler = prompt[_only(prompt, "KSampler")]["inputs"]
    assert sampler["denoise"] == 0.35
    with placed(full_size_files, server.folder / "models"):
        name = "FaithDiff.bin"
        if kind != "sdxl":
            name = distilled.write(server.folder / "models" / "diffusion_models", kind).name
            sampler.update(steps=4, cfg=1.0)
            prompt[_only(prompt, "PGPDiffSRTiling")]["inputs"].update(tile=64, overlap=32)
        model = {"model_name": name, "plan": "none", "weight_dtype": "default"}
        prompt["unet"] = {"class_type": "PGPDiffSRLoadModel", "inputs": model}
        prompt["vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": "sdxl_vae.safetensors"}}
        for name in ("positive", "negative"):
            del prompt[sampler[name][0]]
            inputs = {"conditioning_name": f"{name}.safetensors"}
            prompt[name] = {"class_type": "PGPDiffSRLoadConditioning", "inputs": inputs}
            sampler[name] = [name, 0]
        del prompt[loader]
        for node in prompt.values():
            for key, value in node["inputs"].items():
                if value == [loader, 0]:
                    node["inputs"][key] = ["unet", 0]
                if value == [loader, 2]:
                    node["inputs"][key] = ["vae", 0]
        try:
            result = _pictures(server, prompt)
        finally:
            (server.folder / "models" / "diffusion_models" / f"{kind}.safetensors").unlink(missing_ok=True)
    assert result.shape == (1, 3, 58, 74)
    assert (result.mean((2, 3)) - x.mean((2, 3))).abs().max() <= 0.05


@pytest.mark.parametrize("name", ["upscale-video-nano", "upscale-4k-nano", "upscale-any-sdxl"])
def test_the_thumbnail_is_small(name: str) -> None:
    file = PACK / "workflows" / f"{name}.jpg"
    assert file.stat().st_size < 100_000
    with Image.open(file) as thumbnail:
        assert thumbnail.size == (512, 512)
