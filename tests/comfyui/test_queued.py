"""Several graphs in ComfyUI's queue, on one bundled MODEL: each gives what it gives alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from . import pictures
from .comfy_server import Server

#: Pictures of two sizes, one sampled in tiles; two steps, and one step with its LoRA.
GRAPHS: dict[str, dict[str, Any]] = {
    "tiled": {"size": (76, 52), "tile": 32, "steps": 2},
    "whole": {"size": (48, 64), "tile": 0, "steps": 2},
    "one step": {"size": (76, 52), "tile": 0, "steps": 1},
}


def _prompt(name: str, tile: int, steps: int) -> dict[str, Any]:
    tiling = {"tile": tile, "overlap": 16, "blend": "cosine", "phase": "tile", "frames": 0}
    # fmt: off
    prompt: dict[str, Any] = {
        "nano": {"class_type": "PGPDiffSRLoadNano", "inputs": {}},
        "picture": {"class_type": "LoadImage", "inputs": {"image": name}},
        "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["picture", 0], "vae": ["nano", 2]}},
        "tiling": {"class_type": "PGPDiffSRTiling", "inputs": {"model": ["nano", 0], **tiling}},
        "apply": {"class_type": "PGPDiffSRApply", "inputs": {
            "model": ["tiling", 0], "model_patch": ["nano", 1], "image": ["picture", 0], "strength": 1.0,
            "start_percent": 0.0, "end_percent": 1.0}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["nano", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "queued"}},
    }
    if steps == 1:
        return prompt | {
            "lora": {"class_type": "LoraLoaderModelOnly", "inputs": {
                "model": ["apply", 0], "lora_name": "pgp-nano-s1.safetensors", "strength_model": 1.0}},
            "one": {"class_type": "PGPDiffSROneStep", "inputs": {"model": ["lora", 0], "timestep": 999}},
            "sample": {"class_type": "SamplerCustom", "inputs": {
                "model": ["lora", 0], "add_noise": False, "noise_seed": 1, "cfg": 1.0, "positive": ["nano", 3],
                "negative": ["nano", 4], "sampler": ["one", 0], "sigmas": ["one", 1], "latent_image": ["latent", 0]}},
        }
    return prompt | {
        "sample": {"class_type": "KSampler", "inputs": {
            "model": ["apply", 0], "positive": ["nano", 3], "negative": ["nano", 4], "latent_image": ["latent", 0],
            "seed": 1, "steps": steps, "cfg": 1.5, "sampler_name": "euler", "scheduler": "ddim_uniform",
            "denoise": 1.0}},
    }
    # fmt: on


def _result(server: Server, entry: dict[str, Any]) -> torch.Tensor:
    cached = [d["nodes"] for event, d in entry["status"]["messages"] if event == "execution_cached"]
    assert not any("sample" in nodes for nodes in cached), "it must be sampled, not remembered"
    (image,) = entry["outputs"]["save"]["images"]
    return pictures.read(server.picture(image))


@pytest.mark.parametrize("order", [("tiled", "whole", "one step"), ("one step", "whole", "tiled")])
def test_queued_graphs_give_what_each_gives_alone(order: tuple[str, ...], server: Server, tmp_path: Path) -> None:
    def prompt(graph: str, turn: str) -> dict[str, Any]:
        """A picture of another name each time: ComfyUI would remember the result of the same."""
        given = GRAPHS[graph]
        name = f"queued {graph} {turn} {'-'.join(order)}.png"
        server.upload(pictures.save(pictures.smooth(3, *given["size"]), tmp_path / name), name)
        return _prompt(name, given["tile"], given["steps"])

    alone = {graph: _result(server, server.run(prompt(graph, "alone"))) for graph in order}
    queued = [(graph, server.queue(p)) for graph, p in [(graph, prompt(graph, "queued")) for graph in order]]
    for graph, prompt_id in queued:
        assert torch.equal(_result(server, server.wait(prompt_id)), alone[graph]), graph
