"""Nano's dial from faithful to natural in ComfyUI: the command line's weights, as patches of core's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import natural_lora
import pytest
import torch

from pgp_core.images.sizes import Size
from pgp_core.restorers.nano import model as nano
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale

from . import pictures
from .comfy_server import RunFailed, Server

WIDTH, HEIGHT = 23, 17
OTHERS = {"scale": 4.0, "steps": 1, "cfg": 0.0, "strength": 1.0, "seed": 0, "tile": 0, "color_fix": "wavelet"}


@pytest.fixture(scope="module", autouse=True)
def picture(server: Server, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """``natural.png`` in ComfyUI's input folder, as it was saved."""
    path = pictures.save(pictures.smooth(6, HEIGHT, WIDTH), tmp_path_factory.mktemp("lq") / "lq.png")
    server.upload(path, "natural.png")
    return pictures.read(path.read_bytes())


@pytest.fixture
def second_lora(server: Server) -> Iterator[Path]:
    """A natural LoRA in the copy of the pack that the server runs."""
    file = natural_lora.write(server.pack / nano.FOLDER.relative_to(Path(nano.__file__).parents[3]) / nano.NATURAL_FILE)
    yield file
    file.unlink()


def _result(server: Server, **inputs: Any) -> torch.Tensor:
    values = {"image": ["load", 0], **OTHERS, "shared_noise": False, **inputs}
    prompt = {
        "load": {"class_type": "LoadImage", "inputs": {"image": "natural.png"}},
        "upscale": {"class_type": "PGPDiffSRUpscale", "inputs": values},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["upscale", 0], "filename_prefix": "natural"}},
    }
    (saved,) = server.run(prompt)["outputs"]["save"]["images"]
    return pictures.read(server.picture(saved))


def test_with_one_lora_it_is_faithful_or_refuses(server: Server) -> None:
    assert torch.equal(_result(server, natural=0.0), _result(server)), "graphs that were saved before lack it"
    with pytest.raises(RunFailed, match=r"natural needs a second S1 LoRA, .* set it to 0"):
        _result(server, natural=0.5)
    # Steps do not read it.
    assert torch.equal(_result(server, natural=0.5, steps=2), _result(server, steps=2))


def test_it_is_the_last_widget_and_faithful_by_itself(object_info: dict[str, Any]) -> None:
    inputs = object_info["PGPDiffSRUpscale"]["input_order"]
    assert [*inputs["required"], *inputs.get("optional", [])][-1] == "natural"
    _, said = object_info["PGPDiffSRUpscale"]["input"]["optional"]["natural"]
    assert (said["default"], said["min"], said["max"]) == (0.0, 0.0, 1.0)


def test_both_backbones_agree(server: Server, picture: torch.Tensor, second_lora: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nano"
    shutil.copytree(nano.FOLDER, folder)
    shutil.copyfile(second_lora, folder / nano.NATURAL_FILE)
    made = []
    for share in (0.0, 0.5, 1.0):
        expected = upscale(NanoRestorer.load(folder=folder, natural=share), picture, Size(scale=4))
        found = _result(server, natural=share)
        # Half a level in the result that was saved.
        assert float((found - expected).abs().max()) <= 1 / 255, share
        made.append(found)
    assert not torch.equal(made[0], made[1]) and not torch.equal(made[1], made[2])
