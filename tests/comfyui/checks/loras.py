"""LoRAs and merges on every kind of pruned MODEL, by core's own loaders and nodes; what core makes of pruned files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch as replace

import comfy.hooks
import comfy.lora
import comfy.sd
import comfy.utils
import comfy.weight_adapter
import folder_paths
import torch
from comfy_extras import nodes_model_merging as merging
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.save_model import PGPDiffSRSaveModel
from pgp_pack.pgp_core.unet.plan import load_plan

from . import scene


def files(out: Path) -> Path:
    """Where the tests put the narrow files."""
    return out.parent / "files"


def models(out: Path) -> dict[str, Any]:
    """One UNet of nano's size, whole and pruned in every way."""
    path, options = str(files(out) / "nano.safetensors"), {"dtype": torch.float32}
    whole, plan = comfy_backbone.load_unet(path, options), load_plan("pgp-nano")
    live, _ = comfy_backbone.apply_plan(whole, plan)
    folder_paths.set_output_directory(str(files(out) / "output"))
    saved = comfy_backbone.save_unet(live, "diffusion_models/pruned")
    return {
        "whole": whole,
        "with a plan": comfy_backbone.load_unet(path, {**options, "plan": plan}),
        "a pruned file": comfy_backbone.load_unet(str(saved), options),
        "Apply Plan": live,
    }


def said(action: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What an action gives, and what is logged meanwhile."""
    with scene.Messages() as messages:
        result = action()
    return result, messages.lines


def weight(model: Any, name: str) -> torch.Tensor:
    """A weight as it is when the MODEL samples."""
    key = f"diffusion_model.{name}"
    value = comfy.utils.get_attr(model.model, key).clone()
    if key not in model.patches:
        return value
    return comfy.lora.calculate_weight(model.patches[key], value, key)  # type: ignore[no-any-return]


def check_kinds_by_core(out: Path) -> Any:
    """Every kind of layer through core's loader, on the whole UNet."""
    model = comfy_backbone.load_unet(str(files(out) / "unet.safetensors"), {"dtype": torch.float32})
    tensors, lines = {}, {}
    for path in sorted((files(out) / "kinds").glob("*.safetensors")):
        lora = comfy.utils.load_torch_file(str(path), safe_load=True)
        (patched, _), lines[path.stem] = said(
            lambda lora=lora: comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
        )
        for key in patched.patches:
            tensors[f"{path.stem}/{key.removeprefix('diffusion_model.')}"] = weight(
                patched, key[len("diffusion_model.") :]
            )
    scene.save(out, **tensors)
    return lines


@contextmanager
def _bypassing() -> Iterator[list[int]]:
    """How many layers core's bypass loader hooks into a MODEL."""
    counts: list[int] = []
    manager = comfy.weight_adapter.BypassInjectionManager
    core = manager.create_injections

    def counting(self: Any, model: Any) -> Any:
        made = core(self, model)
        counts.append(self.get_hook_count())
        return made

    with replace.object(manager, "create_injections", counting):
        yield counts


def check_lines_of_loras(out: Path) -> Any:
    """A LoRA for full SDXL on each kind of MODEL, by each of core's loaders."""
    results: dict[str, Any] = {}
    for kind, model in models(out).items():
        for path in sorted((files(out) / "whole").glob("*.safetensors")):
            lora = comfy.utils.load_torch_file(str(path), safe_load=True)
            ways: dict[str, Callable[[], Any]] = {
                "loader": lambda m=model, x=lora: comfy.sd.load_lora_for_models(m, None, x, 1.0, 0.0)[0],
                "bypass": lambda m=model, x=lora: comfy.sd.load_bypass_lora_for_models(m, None, x, 1.0, 0.0)[0],
                "hooks": lambda m=model, x=lora: comfy.sd.comfy.hooks.load_hook_lora_for_models(m, None, x, 1.0, 0.0)[
                    0
                ],
            }
            for way, load in ways.items():
                with _bypassing() as bypassed:
                    patched, lines = said(load)
                hooked = next(iter(patched.hook_patches.values()), {})
                results[f"{kind} / {path.stem} / {way}"] = {
                    "lines": lines[:3],
                    "count": len(lines),
                    "patched": len(patched.patches) or len(hooked) or sum(bypassed),
                }
    return results


def _bottleneck(model: Any) -> Any:
    """What merge nodes ask of a second MODEL, of its bottleneck alone: core goes through all names for every weight."""

    def get(prefix: str) -> dict[str, Any]:
        return {k: v for k, v in model.get_key_patches(prefix).items() if k.startswith("diffusion_model.middle_block.")}

    return SimpleNamespace(get_key_patches=get)


def check_lines_of_merges(out: Path) -> Any:
    """Core's merge nodes on whole and pruned MODELs, either way round; the result is used."""
    found = models(out)
    whole = found.pop("whole")
    nodes: dict[str, Callable[[Any, Any], Any]] = {
        "simple": lambda a, b: merging.ModelMergeSimple().merge(a, b, 0.25)[0],
        "add": lambda a, b: merging.ModelAdd().merge(a, b)[0],
        "subtract": lambda a, b: merging.ModelSubtract().merge(a, b, 1.0)[0],
        "blocks": lambda a, b: merging.ModelMergeBlocks().merge(a, b, input=0.5, middle=0.5, out=0.5)[0],
    }
    results: dict[str, Any] = {}
    for kind, model in found.items():
        for node, merge in nodes.items():
            if node != "simple" and kind != "with a plan":
                continue
            for way, pair in (("into pruned", (model, whole)), ("into whole", (whole, model))):

                def act(merge: Any = merge, pair: Any = pair) -> Any:
                    merged = merge(pair[0], _bottleneck(pair[1]))
                    comfy.model_management.load_models_gpu([merged])
                    return merged

                merged, lines = said(act)
                lines = [x for x in lines if "loaded completely" not in x and "Requested to load" not in x]
                results[f"{kind} / {node} / {way}"] = {
                    "lines": lines[:3],
                    "count": len(lines),
                    "patched": len(merged.patches),
                }
    return results


def check_what_core_reads(out: Path) -> Any:
    """Core's own loader on files of SDXL's size and several plans, without their numbers."""
    asked = json.loads((files(out) / "plans.json").read_text())
    results: dict[str, Any] = {}
    for name, shapes in asked.items():
        sd = {k: torch.empty(v, device="meta", dtype=torch.float16) for k, v in shapes.items()}

        def load(sd: Any = sd) -> Any:
            with torch.device("meta"):
                return comfy.sd.load_diffusion_model_state_dict(dict(sd))

        try:
            model, _ = said(load)
        except Exception as e:
            results[name] = type(e).__name__
            continue
        if model is None:
            results[name] = "no match"
            continue
        there = model.model.diffusion_model.state_dict().keys()
        results[name] = [type(model.model).__name__, len(sd.keys() - there), len(there - sd.keys())]
    return results


def check_saved_by_core(out: Path) -> Any:
    """Core's Save Model on a pruned MODEL."""
    model = models(out)["with a plan"]
    node = merging.ModelSave()
    node.output_dir = str(files(out) / "output")
    _, lines = said(lambda: node.save(model, "diffusion_models/core"))
    path = next((files(out) / "output" / "diffusion_models").glob("core_*.safetensors"))
    again = comfy_backbone.load_unet(str(path), {"dtype": torch.float32})
    same = model.model.diffusion_model.state_dict()
    return {
        "lines": [x for x in lines if "pruned" in x],
        "read by ours": all(torch.equal(v, same[k]) for k, v in again.model.diffusion_model.state_dict().items()),
    }


def check_shown_by_the_node(out: Path) -> Any:
    """The node's text, and the log."""

    class Shown(PGPDiffSRSaveModel):
        hidden = SimpleNamespace(prompt=None, extra_pnginfo=None)

    model = models(out)["with a plan"]
    shown, lines = said(lambda: Shown.execute(model, "diffusion_models/shown"))
    return {"text": shown.ui.as_dict()["text"][0], "lines": lines}
