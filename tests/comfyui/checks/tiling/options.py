"""What a network finds in its options."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.pgp_core.choices import PHASES

from .. import scene

SIDE, OVERLAP = 64, 32
HEIGHT, WIDTH = 24, 16


def check_tiling_compiled_options(_out: Path) -> Any:
    """A compiled network takes every name in its options for one that is always there; fast, without a compiler."""
    nano, noise = scene.Nano(), scene.noise(1, HEIGHT, WIDTH)
    guided = nano.guided(scene.pictures(1, 1, HEIGHT, WIDTH))
    seen: list[list[str]] = []

    def noting(executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(sorted(next(a for a in (*args, *kwargs.values()) if isinstance(a, dict) and "sigmas" in a)))
        return executor(x, t, *args, **kwargs)

    results = {}
    for phase in (None, *PHASES):
        model = guided.clone()
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY, noting)
        model = tile_model(model, SIDE, OVERLAP, phase=phase) if phase else model
        if phase:
            model.model_options["transformer_options"]["pgp_groups"] = SimpleNamespace(skip=lambda *_: None)
        seen.clear()
        nano.sample(model, noise, 1)
        results[str(phase)] = {"calls": len(seen), "names": sorted({n for names in seen for n in names})}
    return results
