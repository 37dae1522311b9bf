"""Canvas and colour fix in ComfyUI: exact sizes, alpha, batches."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pgp_core.images.resampling import enlarge

from . import pictures
from .comfy_server import Server
from .locate import PACK
from .ui_to_prompt import BYPASSED, to_prompt


def _image(data: Any) -> Image.Image:
    return Image.open(io.BytesIO(data) if isinstance(data, bytes) else data)


def _canvas(image: list[Any], **options: Any) -> dict[str, Any]:
    inputs = {"by": "scale", "scale": 4.0, "pixels": 64, "model": "pgp-nano"} | options
    return {"class_type": "PGPDiffSRCanvas", "inputs": {"image": image, **inputs}}


def _fix(image: list[Any], reference: list[Any], size: str, method: str = "wavelet") -> dict[str, Any]:
    inputs = {"image": image, "reference": reference, "method": method, "width": [size, 1], "height": [size, 2]}
    return {"class_type": "PGPDiffSRColorFix", "inputs": inputs}


def _save(image: list[Any]) -> dict[str, Any]:
    return {"class_type": "SaveImage", "inputs": {"images": image, "filename_prefix": "canvas"}}


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"scale": 1.5}, (32, 20)),
        ({"by": "width", "pixels": 50}, (50, 31)),
        ({"by": "height", "pixels": 50}, (81, 50)),
        ({"by": "longest side", "pixels": 100, "model": "sdxl"}, (100, 62)),
    ],
    ids=lambda x: x.get("by", "scale") if isinstance(x, dict) else "",
)
def test_sizes_are_exact_and_alpha_comes_along(
    options: dict[str, Any], size: tuple[int, int], server: Server, tmp_path: Path
) -> None:
    rgba = Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 21, 4)).astype(np.uint8))
    rgba.save(tmp_path / "rgba.png")
    server.upload(tmp_path / "rgba.png", "rgba.png")
    load = {"class_type": "LoadImage", "inputs": {"image": "rgba.png"}}
    # LoadImage gives alpha apart, as a mask that is 1 where the picture is transparent; so does core take it back.
    join = {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["1", 0], "alpha": ["1", 1]}}
    prompt = {
        "1": load,
        "2": join,
        "3": _canvas(["2", 0], **options),
        "4": _fix(["3", 0], ["3", 0], "3"),
        "5": _save(["4", 0]),
    }
    (saved,) = server.run(prompt)["outputs"]["5"]["images"]
    result = _image(server.picture(saved))
    assert (result.size, result.mode) == (size, "RGBA")
    x = torch.from_numpy(np.array(rgba)).movedim(-1, 0)[None] / 255
    expected = enlarge(x, *size)[0].movedim(0, -1).numpy() * 255
    # SaveImage rounds down.
    assert np.abs(np.asarray(result) - expected).max() <= 1.01


def test_a_transparent_disc_has_no_rim(server: Server, tmp_path: Path) -> None:
    """Through the canvas and the simple node's graph: what is seen is the disc's colour and the paper's, mixed by
    alpha, whatever the file holds under alpha 0."""
    y, x = np.mgrid[:25, :25]
    alpha = np.clip((9 - np.hypot(y - 12, x - 12)) / 2 + 0.5, 0, 1) * 255
    colour = np.array((230, 128, 51))
    results = []
    for name, under in (("black", 0), ("noise", np.random.default_rng(0).integers(0, 256, (25, 25, 3)))):
        rgb = np.where(alpha.round()[..., None] > 0, colour, under)
        rgba = Image.fromarray(np.dstack([rgb, alpha.round()]).astype(np.uint8))
        rgba.save(tmp_path / f"{name}.png")
        server.upload(tmp_path / f"{name}.png", f"disc-{name}.png")
        load = {"class_type": "LoadImage", "inputs": {"image": f"disc-{name}.png"}}
        join = {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["1", 0], "alpha": ["1", 1]}}
        upscale = {"image": ["2", 0], "scale": 2.0, "steps": 1, "cfg": 0.0, "strength": 1.0, "seed": 0, "tile": 0}
        prompt = {
            "1": load,
            "2": join,
            "3": _canvas(["2", 0], scale=2.0),
            "4": _fix(["3", 0], ["3", 0], "3"),
            "5": _save(["4", 0]),
            "6": {
                "class_type": "PGPDiffSRUpscale",
                "inputs": upscale | {"color_fix": "wavelet", "shared_noise": False},
            },
            "7": _save(["6", 0]),
        }
        outputs = server.run(prompt)["outputs"]
        results.append([np.asarray(_image(server.picture(outputs[i]["images"][0])), float) for i in ("5", "7")])
    for black, noise, tolerance in zip(*results, (1.01, 3.0), strict=True):
        assert black.shape == (50, 50, 4) and np.array_equal(black, noise)
        # SaveImage rounds down; the model changes a plane of one colour by a level or two.
        assert (np.abs(black[..., :3] - colour) * black[..., 3:] / 255).max() <= tolerance


def test_a_batch_is_its_pictures_one_by_one(server: Server, object_info: dict[str, Any], tmp_path: Path) -> None:
    """20 steps take them one by one (core's Rebatch Images); one step draws no noise and takes them together."""
    for i in range(3):
        server.upload(pictures.save(pictures.smooth(20 + i, 11, 9), tmp_path / f"b{i}.png"), f"b{i}.png")
    for name in ("upscale-nano", "upscale-nano-s1"):
        workflow = json.loads((PACK / "workflows" / f"{name}.json").read_text())
        for node in workflow["nodes"]:
            if node["type"] == "ImageScaleToMaxDimension":
                node["mode"] = BYPASSED
        prompt = to_prompt(workflow, object_info)
        for node in prompt.values():
            if node["class_type"] == "KSampler":
                node["inputs"]["steps"] = 3
        (load,) = (i for i, n in prompt.items() if n["class_type"] == "LoadImage")
        (saver,) = (i for i, n in prompt.items() if n["class_type"] == "SaveImage")
        behind = [n for n in prompt.values() if [load, 0] in n["inputs"].values()]

        alone = []
        for i in range(3):
            prompt[load]["inputs"]["image"] = f"b{i}.png"
            (saved,) = server.run(prompt)["outputs"][saver]["images"]
            alone.append(pictures.read(server.picture(saved)))
        for i in (1, 2):
            prompt[f"load {i}"] = {"class_type": "LoadImage", "inputs": {"image": f"b{i}.png"}}
        prompt[load]["inputs"]["image"] = "b0.png"
        prompt["two"] = {"class_type": "ImageBatch", "inputs": {"image1": [load, 0], "image2": ["load 1", 0]}}
        prompt["three"] = {"class_type": "ImageBatch", "inputs": {"image1": ["two", 0], "image2": ["load 2", 0]}}
        for node in behind:
            node["inputs"].update({k: ["three", 0] for k, v in node["inputs"].items() if v == [load, 0]})
        together = server.run(prompt)["outputs"][saver]["images"]
        assert len(together) == 3
        for one, saved in zip(alone, together, strict=True):
            assert float((one - pictures.read(server.picture(saved))).abs().max()) * 255 <= 1


def test_cores_color_transfer_in_its_place(server: Server, tmp_path: Path) -> None:
    """Core gives a picture with a cast the colours of the canvas; ours behind it then only cuts the frame off."""
    picture = pictures.smooth(3, 40, 30)
    server.upload(pictures.save(picture, tmp_path / "true.png"), "true.png")
    server.upload(pictures.save((picture * 0.6 + 0.3).clamp(0, 1), tmp_path / "cast.png"), "cast.png")
    transfer = {"method": "reinhard_lab", "source_stats": "per_frame", "strength": 1.0}
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "true.png"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "cast.png"}},
        "3": _canvas(["1", 0], scale=1.0),
        "4": _canvas(["2", 0], scale=1.0),
        "5": {"class_type": "ColorTransfer", "inputs": {"image_target": ["4", 0], "image_ref": ["3", 0], **transfer}},
        "6": _fix(["5", 0], ["3", 0], "3", method="none"),
        "7": _save(["6", 0]),
    }
    (saved,) = server.run(prompt)["outputs"]["7"]["images"]
    result = pictures.read(server.picture(saved))
    assert result.shape == picture.shape
    assert float((result.mean((-1, -2)) - picture.mean((-1, -2))).abs().max()) < 0.02
