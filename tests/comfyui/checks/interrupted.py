"""Graphs that core's own executor runs, interrupted in each phase of a picture."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch as replace

import comfy.model_management as mm
import execution
import pgp_pack
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from pgp_pack.nodes.comfy_backbone.nano import _PixelCodec
from pgp_pack.pgp_core.guidance.lq_adapter import LQAdapter
from pgp_pack.pgp_core.guidance.lq_tiles import LQTiles

import nodes

#: Of the canvas without its frame of 32 pixels on each side.
WIDTH, HEIGHT = 76, 52
#: Of the 144 x 128 pixels with that frame, in a step.
TILES = 4
STEPS = 2

#: What each phase calls.
PHASES = {
    "encode": (_PixelCodec, "encode"),
    "features": (LQAdapter, "forward"),
    "sampling": (UNetModel, "forward"),
    "decode": (_PixelCodec, "decode"),
}


class Keep:
    """An output node that keeps what it is given."""

    RETURN_TYPES = ()
    FUNCTION = "keep"
    OUTPUT_NODE = True
    CATEGORY = "tests"
    kept: ClassVar[list[torch.Tensor]] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",)}}

    def keep(self, images: torch.Tensor) -> dict[str, Any]:
        self.kept.append(images.clone())
        return {}


def check_interrupted_phases(_out: Path) -> Any:
    _register()
    results = {}
    # Several tiles for the features of so small a picture, too.
    with replace.object(LQTiles.__init__, "__defaults__", _small_tiles(LQTiles.__init__)):
        _, calls, wanted = _run(_executor())
        results["undisturbed"] = calls
        # In which call the interruption comes; in the second step's second tile.
        for phase, call in {"encode": 1, "features": 2, "sampling": TILES + 2, "decode": 1}.items():
            executor = _executor()
            messages, stopped, nothing = _run(executor, phase, call)
            event, detail = messages[-1]
            again, calls, result = _run(executor)
            results[phase] = {
                "event": event,
                "node": detail.get("node_type"),
                "calls": stopped,
                "no picture": nothing is None,
                "not run again": [n for e, d in again if e == "execution_cached" for n in d["nodes"]],
                "calls of the next": calls,
                "the next is the same": torch.equal(result, wanted),
            }
    return results


def _register() -> None:
    """What the graph below is made of, for core's executor."""

    async def ours() -> Any:
        extension = await pgp_pack.comfy_entrypoint()
        return await extension.get_node_list()

    for node in asyncio.run(ours()):
        nodes.NODE_CLASS_MAPPINGS[node.GET_SCHEMA().node_id] = node
    nodes.NODE_CLASS_MAPPINGS["Keep"] = Keep


def _executor() -> Any:
    server = SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None)
    return execution.PromptExecutor(server, cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0})


def _run(executor: Any, stop: str = "", at: int = 0) -> tuple[list[Any], dict[str, int], Any]:
    """Run the graph, with an interruption in the call ``at`` of the phase ``stop``.

    Returns:
        what core said, how often each phase was called, and the picture or None.
    """
    calls = dict.fromkeys(PHASES, 0)

    def counting(phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[phase] += 1
            if (phase, calls[phase]) == (stop, at):
                mm.interrupt_current_processing()
            return call(*args, **kwargs)

        return counted

    Keep.kept.clear()
    with contextlib.ExitStack() as watched:
        for phase, (owner, name) in PHASES.items():
            watched.enter_context(replace.object(owner, name, counting(phase, getattr(owner, name))))
        executor.execute(_prompt(), "a prompt", {}, ["keep"])
    return executor.status_messages, calls, Keep.kept[0] if Keep.kept else None


def _prompt() -> dict[str, Any]:
    canvas = {"by": "scale", "scale": 2.0, "pixels": 64, "model": "pgp-nano"}
    tiling = {"tile": 96, "overlap": 16, "blend": "cosine", "phase": "tile", "frames": 0}
    sampler = {"seed": 3, "steps": STEPS, "cfg": 1.0, "sampler_name": "euler", "scheduler": "ddim_uniform"}
    # fmt: off
    return {
        "nano": {"class_type": "PGPDiffSRLoadNano", "inputs": {}},
        "picture": {"class_type": "EmptyImage", "inputs": {
            "width": WIDTH // 2, "height": HEIGHT // 2, "batch_size": 1, "color": 0x8040C0}},
        "canvas": {"class_type": "PGPDiffSRCanvas", "inputs": {"image": ["picture", 0], **canvas}},
        "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["canvas", 0], "vae": ["nano", 2]}},
        "apply": {"class_type": "PGPDiffSRApply", "inputs": {
            "model": ["nano", 0], "model_patch": ["nano", 1], "image": ["canvas", 0], "strength": 1.0,
            "start_percent": 0.0, "end_percent": 1.0}},
        "tiling": {"class_type": "PGPDiffSRTiling", "inputs": {"model": ["apply", 0], **tiling}},
        "sample": {"class_type": "KSampler", "inputs": {
            "model": ["tiling", 0], "positive": ["nano", 3], "negative": ["nano", 4], "latent_image": ["latent", 0],
            "denoise": 1.0, **sampler}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["nano", 2]}},
        "fix": {"class_type": "PGPDiffSRColorFix", "inputs": {
            "image": ["decode", 0], "reference": ["canvas", 0], "method": "wavelet", "width": WIDTH, "height": HEIGHT}},
        "keep": {"class_type": "Keep", "inputs": {"images": ["fix", 0]}},
    }
    # fmt: on


def _small_tiles(init: Any) -> tuple[Any, ...]:
    """The defaults of LQTiles with tiles of 64 pixels for the adapter."""
    names = init.__code__.co_varnames[1 : init.__code__.co_argcount]
    values = dict(zip(names[-len(init.__defaults__) :], init.__defaults__, strict=True))
    return tuple((values | {"adapter_tile": 64}).values())
