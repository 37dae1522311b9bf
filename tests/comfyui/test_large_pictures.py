"""What users give that is too small, too large or does not fit, with tiles: it works, or one line says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from . import pictures
from .comfy_server import RunFailed, Server

#: Of the picture that most of this uses.
WIDTH, HEIGHT = 40, 28


@pytest.fixture(scope="module", autouse=True)
def uploaded(server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Pictures in ComfyUI's input folder."""
    folder = tmp_path_factory.mktemp("pictures")
    server.upload(pictures.save(pictures.smooth(9, HEIGHT, WIDTH), folder / "small.png"), "large-small.png")
    server.upload(pictures.save(torch.full((1, 3, 1, 1), 0.6), folder / "one.png"), "large-one.png")


def _upscale(image: str | list[Any], **inputs: Any) -> dict[str, Any]:
    settings = {"scale": 4.0, "steps": 1, "cfg": 0.0, "strength": 1.0, "seed": 0, "tile": 0, "color_fix": "wavelet"}
    prompt = {
        "upscale": {
            "class_type": "PGPDiffSRUpscale",
            "inputs": {**settings, "shared_noise": False, "image": image, **inputs},
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["upscale", 0], "filename_prefix": "large"}},
    }
    if isinstance(image, str):
        prompt["upscale"]["inputs"]["image"] = ["load", 0]
        prompt["load"] = {"class_type": "LoadImage", "inputs": {"image": image}}
    return prompt


def _saved(server: Server, prompt: dict[str, Any]) -> torch.Tensor:
    images = server.run(prompt)["outputs"]["save"]["images"]
    return torch.cat([pictures.read(server.picture(i)) for i in images])


# -- one pixel -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [0, 32])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_picture_of_one_pixel(steps: int, tile: int, server: Server) -> None:
    result = _saved(server, _upscale("large-one.png", steps=steps, tile=tile))
    assert result.shape == (1, 3, 4, 4)
    # The colour fix keeps its colour; two steps are not enough for more.
    assert (result.mean((-2, -1)) - 0.6).abs().max() <= (0.02 if steps == 1 else 0.1)


# -- hundreds of megapixels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["PGPDiffSRUpscale", "PGPDiffSRCanvas"])
def test_hundreds_of_megapixels_are_refused_before_anything_is_made(node: str, server: Server) -> None:
    prompt = _upscale(["large", 0])
    empty = {"width": 5000, "height": 5000, "batch_size": 1, "color": 0}
    prompt["large"] = {"class_type": "EmptyImage", "inputs": empty}
    if node == "PGPDiffSRCanvas":
        canvas = {"by": "scale", "scale": 4.0, "pixels": 64, "model": "pgp-nano"}
        prompt["upscale"] = {"class_type": node, "inputs": {"image": ["large", 0], **canvas}}
    with pytest.raises(RunFailed, match=rf"^{node}: .*5000x5000 would become 20000x20000; 16384 pixels a side"):
        server.run(prompt)


# -- tiles, masks, batches -------------------------------------------------------------------------------------


def test_tiles_no_larger_than_their_overlap_are_refused(server: Server) -> None:
    prompt = _sampled({"tile": 64, "overlap": 64})
    with pytest.raises(RunFailed, match="tiles of 64 pixels cannot overlap by 64; give larger tiles or less overlap"):
        server.run(prompt)


@pytest.mark.parametrize("size", [(64, 48), (7, 300)])
def test_masks_of_another_size(size: tuple[int, int], server: Server) -> None:
    """Core fits them to the latent: what is masked out of the latent stays, in tiles as well as whole."""
    results = {}
    for tile in (0, 64):
        prompt = _sampled({"tile": tile, "overlap": 32})
        width, height = size
        prompt["left"] = {
            "class_type": "SolidMask",
            "inputs": {"value": 1.0, "width": width // 2, "height": height},
        }
        prompt["all"] = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": width, "height": height}}
        prompt["mask"] = {
            "class_type": "MaskComposite",
            "inputs": {"destination": ["all", 0], "source": ["left", 0], "x": 0, "y": 0, "operation": "add"},
        }
        prompt["noise mask"] = {
            "class_type": "SetLatentNoiseMask",
            "inputs": {"samples": ["latent", 0], "mask": ["mask", 0]},
        }
        prompt["masked"] = {
            "class_type": "ConditioningSetMask",
            "inputs": {
                "conditioning": ["nano", 3], "mask": ["mask", 0], "strength": 1.0, "set_cond_area": "default",
            },
        }  # fmt: skip
        prompt["sample"]["inputs"] |= {"latent_image": ["noise mask", 0], "positive": ["masked", 0]}
        results[tile] = _saved(server, prompt)
    whole, tiled = results[0], results[64]
    original = _saved(server, _sampled({"tile": 0, "overlap": 32}, denoise=None))
    # The right half is masked; a latent position has four pixels.
    edge = original.shape[-1] // 2 + 8
    for result in (whole, tiled):
        assert (result - original)[..., edge:].abs().max() <= 1.5 / 255
        assert (result - original)[..., : edge - 16].abs().mean() > 2 / 255
    assert (tiled - whole).abs().mean() <= 0.05


def test_a_batch_in_tiles_is_its_pictures_in_tiles(server: Server, tmp_path: Path) -> None:
    other = pictures.save(pictures.smooth(10, HEIGHT, WIDTH), tmp_path / "other.png")
    server.upload(other, "large-other.png")
    prompt = _upscale(["both", 0], tile=96)
    for name in ("small", "other"):
        prompt[name] = {"class_type": "LoadImage", "inputs": {"image": f"large-{name}.png"}}
    prompt["both"] = {"class_type": "ImageBatch", "inputs": {"image1": ["small", 0], "image2": ["other", 0]}}
    both = _saved(server, prompt)
    alone = [_saved(server, _upscale(f"large-{name}.png", tile=96)) for name in ("small", "other")]
    assert both.shape == (2, 3, HEIGHT * 4, WIDTH * 4)
    assert (both - torch.cat(alone)).abs().max() <= 1 / 255 + 1e-6
    assert "tiles of 96 x 96 pixels" in server.log_tail(10**7)


def _sampled(tiling: dict[str, Any], denoise: float | None = 0.5) -> dict[str, Any]:
    """Image to image at half the noise, in tiles; or just encoded and decoded."""
    options = {"blend": "cosine", "phase": "tile", "frames": 0, **tiling}
    sampler = {"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "ddim_uniform"}
    # fmt: off
    prompt = {
        "nano": {"class_type": "PGPDiffSRLoadNano", "inputs": {}},
        "load": {"class_type": "LoadImage", "inputs": {"image": "large-small.png"}},
        "canvas": {"class_type": "PGPDiffSRCanvas", "inputs": {
            "image": ["load", 0], "by": "scale", "scale": 2.0, "pixels": 64, "model": "pgp-nano"}},
        "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["canvas", 0], "vae": ["nano", 2]}},
        "apply": {"class_type": "PGPDiffSRApply", "inputs": {
            "model": ["nano", 0], "model_patch": ["nano", 1], "image": ["canvas", 0], "strength": 1.0,
            "start_percent": 0.0, "end_percent": 1.0}},
        "tiling": {"class_type": "PGPDiffSRTiling", "inputs": {"model": ["apply", 0], **options}},
        "sample": {"class_type": "KSampler", "inputs": {
            "model": ["tiling", 0], "positive": ["nano", 3], "negative": ["nano", 4], "latent_image": ["latent", 0],
            "denoise": denoise or 1.0, **sampler}},
        "decode": {"class_type": "VAEDecode", "inputs": {
            "samples": ["sample" if denoise else "latent", 0], "vae": ["nano", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "large"}},
    }
    # fmt: on
    return prompt if denoise else {k: v for k, v in prompt.items() if k not in ("apply", "tiling", "sample")}
