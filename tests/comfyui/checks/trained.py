"""Files that a user's training runs left, narrow: fine-tuned UNet and guidance, healing LoRA, S1 LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sample
import torch
from pgp_pack.nodes import comfy_backbone

from . import scene
from .sdxl import conditioning, noise, pictures


def check_trained_files(out: Path) -> Any:
    """Load PGP-DiffSR Model and Guidance, core's LoRA loader, Apply, One Step and core's sampler."""
    runs = out.parent / "files" / "runs"
    guidance = comfy_backbone.load_guidance(str(runs / "finetune" / "guidance.safetensors"))
    model = comfy_backbone.load_unet(str(runs / "finetune" / "unet.safetensors"), {"dtype": torch.float32})
    image, z_l = pictures(1), noise()
    healing, healed = scene.with_lora(model, runs / "heal" / "lora.safetensors")
    s1, distilled = scene.with_lora(model, runs / "distill-2" / "lora.safetensors")
    sampler, sigmas = comfy_backbone.one_step_sampler(s1, 1)
    positive = conditioning(1)
    z_h = comfy.sample.sample_custom(
        comfy_backbone.apply_guidance(s1, guidance, image, 1.0, 0.0, 1.0),
        *(torch.zeros_like(z_l), 1.0, sampler, sigmas, positive, positive, z_l),
        disable_pbar=True,
        seed=0,
    )
    output = scene.raw(healing, positive, z_l, 500)
    scene.save(out, image=image, z_l=z_l, z_h=z_h, healed=output)
    return {
        "healing": healed,
        "healing changes": scene.difference(output, scene.raw(model, positive, z_l, 500)),
        "one step": distilled,
        "said": comfy_backbone.describe_guidance(guidance),
    }
