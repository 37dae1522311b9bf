"""What ``--lowvram`` and ``--novram`` do to a MODEL: core loads it in part, or not at all, and casts as it computes.

On the CPU core has no such flags, so it is told the memory that it would find.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy.model_management as mm
import torch
from pgp_pack.nodes.comfy_backbone import tile_model

from .. import one_step, scene

#: Bytes for weights; nano has 17 MiB.
ROOM = {"--lowvram": 4 * 2**20, "--novram": 0.1}


def check_tiling_memory(_out: Path) -> Any:
    """Guidance, tiles, a LoRA and one step; a fresh MODEL each time, since it stays as it was loaded."""
    image, noise = scene.pictures(1, 1, 25, 16), scene.noise(1, 25, 16)

    def sampled() -> list[torch.Tensor]:
        mm.unload_all_models()
        nano = scene.Nano()
        with_lora = one_step._with_s1(nano.guided(image))[0]
        tiled = tile_model(with_lora, 64, 32, phase="canvas")
        result = [nano.sample(tiled, noise, steps=2), one_step._sample(nano, tiled, nano.vae.encode(image))]
        layers.append(sum(hasattr(m, "prev_comfy_cast_weights") for m in tiled.model.modules()))
        return result

    layers: list[int] = []
    load = mm.LoadedModel.model_load
    expected = sampled()
    results: dict[str, Any] = {}
    for flag, room in ROOM.items():

        def in_part(self: Any, *_: Any, room: float = room, **kwargs: Any) -> Any:
            return load(self, room, **kwargs)

        with replace.object(mm.LoadedModel, "model_load", in_part):
            results[flag] = max(scene.difference(a, b) for a, b in zip(sampled(), expected, strict=True))
    results["not loaded"] = layers
    mm.unload_all_models()
    return results
