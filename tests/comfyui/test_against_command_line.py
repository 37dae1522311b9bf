"""Each workflow's picture, over HTTP, against pgp_core's: same noise, same sigmas, float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pgp_core.images.sizes import Size
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale
from pgp_core.sampling.options import SampleOptions

from . import pictures
from .comfy_server import Server
from .ui_to_prompt import BYPASSED, to_prompt

WIDTH, HEIGHT, SCALE = 23, 17, 4


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.save(pictures.smooth(7, HEIGHT, WIDTH), tmp_path_factory.mktemp("lq") / "lq.png")


def _node(prompt: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = (n["inputs"] for n in prompt.values() if n["class_type"] == kind)
    return dict(found)


def _by_comfyui(
    workflow: dict[str, Any], object_info: dict[str, Any], server: Server, picture: Path
) -> tuple[dict[str, Any], torch.Tensor]:
    """The prompt that ran, and its picture."""
    for node in workflow["nodes"]:
        if node["type"] == "ImageScaleToMaxDimension":
            # As the workflow's note says for a picture of one's own.
            node["mode"] = BYPASSED
    prompt = to_prompt(workflow, object_info)
    assert (_node(prompt, "PGPDiffSRCanvas")["by"], _node(prompt, "PGPDiffSRCanvas")["scale"]) == ("scale", SCALE)
    server.upload(picture, _node(prompt, "LoadImage")["image"])
    (saver,) = (i for i, n in prompt.items() if n["class_type"] == "SaveImage")
    (saved,) = server.run(prompt)["outputs"][saver]["images"]
    return prompt, pictures.read(server.picture(saved))


def _by_pgp_core(prompt: dict[str, Any], picture: Path) -> torch.Tensor:
    with Image.open(picture) as image:
        x = torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0)[None].float() / 255
    one_step = any(n["class_type"] == "PGPDiffSROneStep" for n in prompt.values())
    if one_step:
        options = SampleOptions(cfg=1.0)
    else:
        sampler = _node(prompt, "KSampler")
        assert (sampler["sampler_name"], sampler["scheduler"], sampler["denoise"]) == ("euler", "ddim_uniform", 1.0)
        options = SampleOptions(steps=sampler["steps"], cfg=sampler["cfg"], seed=sampler["seed"])
    fix = _node(prompt, "PGPDiffSRColorFix")["method"]
    return upscale(NanoRestorer.load(one_step=one_step), x, Size(scale=SCALE), options, fix)


def test_the_workflow_s_picture_is_pgp_core_s(
    upscale_workflow: dict[str, Any],
    object_info: dict[str, Any],
    server: Server,
    picture: Path,
    measured: Callable[[str, float], None],
    request: pytest.FixtureRequest,
) -> None:
    prompt, comfyui = _by_comfyui(upscale_workflow, object_info, server, picture)
    ours = _by_pgp_core(prompt, picture)
    assert comfyui.shape == ours.shape == (1, 3, HEIGHT * SCALE, WIDTH * SCALE)
    difference = float((comfyui - ours).abs().max()) * 255
    measured(f"{request.node.callspec.id} over HTTP, levels of 255,", difference)
    assert difference <= 2, f"the pictures differ by up to {difference:.2f} levels of 255"
