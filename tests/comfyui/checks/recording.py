"""Recording redundancy with core's sampler, on nano."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.pgp_core.unet.plan import PrunePlan, StackPlan

from . import scene


def check_recording(out: Path) -> Any:
    folder_paths.set_output_directory(str(out.parent / "recording output"))
    nano = scene.Nano()
    image, noise = scene.pictures(1, batch=2), scene.noise(batch=2)
    guided = nano.guided(image)
    expected = nano.sample(guided, noise)
    recorded, recording = comfy_backbone.record(guided)
    latent = nano.sample(recorded, noise)
    results: dict[str, Any] = {"bit-equal": torch.equal(latent, expected)}
    report = recording.report()
    results["report"] = report.to_json()
    comfy_backbone.check_report(report, nano.model)
    other = dict(report.model["fingerprint"])
    other = {k: {**v, "values": [x + 1 for x in v["values"]]} for k, v in other.items()}
    try:
        comfy_backbone.check_report(replace(report, model={"name": "another", "fingerprint": other}), nano.model)
    except Exception as e:
        results["report of another"] = [type(e).__name__, str(e), len(other)]
    scene.save(out, image=image, noise=noise, **nano.peam_weights())
    # Nothing stays on the modules, and the MODEL samples as before.
    unet = nano.model.model.diffusion_model
    own = sum(len(m._forward_hooks) for m in unet.modules())
    results["hooks left"] = own
    results["afterwards"] = torch.equal(nano.sample(guided, noise), expected)

    plan = PrunePlan("less", "pgp-nano", {"up_blocks.0.attentions.1": StackPlan(4, ())})
    pruned, _ = comfy_backbone.apply_plan(nano.model, plan)
    recorded, recording = comfy_backbone.record(pruned)
    nano.sample(recorded, noise, steps=2)
    results["blocks when skipped"] = {s: list(map(int, b)) for s, b in recording.report().to_json()["blocks"].items()}

    recorded, recording = comfy_backbone.record(nano.model)

    def stop(step: int, *_: Any) -> None:
        if step == 1:
            comfy.model_management.interrupt_current_processing()

    try:
        nano.sample(recorded, noise, callback=stop)
    except comfy.model_management.InterruptProcessingException:
        results["interrupted"] = True
    (kept,) = (out.parent / "recording output" / "pgp_reports").glob("interrupted*.json")
    data = json.loads(kept.read_text())
    results["kept"] = [data["partial"], data["measured"]["calls"]]
    try:
        comfy_backbone.record(nano.model)[1].report()
    except Exception as e:
        results["nothing recorded"] = [type(e).__name__, str(e)]
    return results
