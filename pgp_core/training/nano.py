"""How nano is made: six stages, each a command that resumes, each starting from the one before.

==========  =============================================================================================
regress     full UNet, LQ added after ``conv_in``; the last timesteps only, a regression of the residual
full        the same model on all timesteps: nano's base, what FaithDiff is to PGP-DiffSR
coarse      coarse plan applied, healed
fine        fine plan applied, PEAM added, healed
finish      a second, shorter cosine on the same model, which ships
s1          a rank-16 LoRA on it for one step
==========  =============================================================================================
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import nano
from ..checkpoints import read_safetensors, write_safetensors
from ..errors import PGPError
from ..guidance import Guidance
from ..plan import load_plan
from ..prune import prune_state_dict
from ..unet_diffusers import build_unet
from ..unet_shape import NANO_SHAPE
from .data import Crops
from .loop import LoopConfig, Trainer
from .losses import OneStepLoss, ResidualDiffusionLoss
from .model import Restorer
from .pictures import paint_set
from .precision import prepare


@dataclass(frozen=True)
class Stage:
    """One stage of the recipe; ``minutes`` on two cores with bfloat16 matrix units."""

    after: str | None
    plan: str | None
    peam: bool
    minutes: float
    lr: float
    batch: int = 16
    patch: int = 64
    timesteps: tuple[int, int] = (0, 999)
    decay: float = 0.999
    lora_rank: int | None = None


STAGES = {
    "regress": Stage(None, None, False, 5, 1e-3, timesteps=(900, 999)),
    "full": Stage("regress", None, False, 8, 1e-3),
    "coarse": Stage("full", "pgp-nano-coarse", False, 6, 8e-4),
    "fine": Stage("coarse", "pgp-nano", True, 50, 1e-3, batch=8, patch=128),
    "finish": Stage("fine", "pgp-nano", True, 10, 5e-4, batch=8, patch=128),
    "s1": Stage("finish", "pgp-nano", True, 9, 1e-3, batch=8, patch=128, lora_rank=16),
}

#: What the LoRA touches: PiSA-SR's list.
LORA_TARGETS = [
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv_in", "conv_out", "conv1", "conv2", "conv_shortcut", "conv"),
]

PICTURES, HELD_OUT = 4000, 48


def build(stage: Stage, folder: Path) -> Restorer:
    """The stage's model with the weights of the stage before it.

    Raises:
        PGPError: if that stage has not been run in ``folder``.
    """
    plan = load_plan(stage.plan) if stage.plan else None
    unet = build_unet(NANO_SHAPE, plan)
    model = Restorer(unet, Guidance.fresh(nano.guidance_spec(stage.peam)), NANO_SHAPE)
    if stage.after:
        path = folder / stage.after / "model.safetensors"
        if not path.exists():
            raise PGPError(f"{path} is not there: run stage {stage.after} first")
        weights, _ = read_safetensors(path)
        if plan:
            kept = prune_state_dict({k[5:]: v for k, v in weights.items() if k.startswith("unet.")}, plan)
            weights = {k: v for k, v in weights.items() if not k.startswith("unet.")}
            weights |= {f"unet.{k}": v for k, v in kept.items()}
        missing, unexpected = model.load_state_dict(weights, strict=False)
        # What may be new is the PEAM and the adapter levels that feed it; all else must be there.
        unknown = [k for k in missing if not k.startswith(("guidance.peam.", "guidance.lq_adapter.body."))]
        if unknown or unexpected:
            raise PGPError(f"{path} does not fit this stage: {(unknown + unexpected)[:3]}; delete it and run again")
    return model


def add_lora(model: Restorer, rank: int) -> None:
    """Freeze the model and put a LoRA on its UNet; alpha equals the rank, so the scale is 1."""
    from peft import LoraConfig

    model.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=LORA_TARGETS)
    model.unet.add_adapter(config)  # type: ignore[operator]


def run_stage(name: str, folder: Path, minutes: float | None = None, threads: int | None = None) -> dict[str, Any]:
    """Run, or resume, one stage.

    Args:
        folder: run folder; each stage has its own folder in it: ``state.pt`` and ``log.jsonl`` while it
            runs, ``model.safetensors`` (averaged weights) and ``figures.json`` when it is done.
        minutes: budget in place of the recipe's.
        threads: of PyTorch.

    Returns:
        the figures.
    """
    if threads:
        torch.set_num_threads(threads)
    stage = STAGES[name]
    seed = list(STAGES).index(name)
    torch.manual_seed(seed)
    os.makedirs(folder, exist_ok=True)
    pictures = paint_set(str(folder / "pictures.npy"), PICTURES, seed=0)
    model = build(stage, folder)
    if stage.lora_rank:
        add_lora(model, stage.lora_rank)
        loss: Any = OneStepLoss(nano.SCALE, nano.S1_TIMESTEP)
    else:
        loss = ResidualDiffusionLoss(nano.SCALE, nano.PREDICTION, timesteps=stage.timesteps)
    model = model.to(memory_format=torch.channels_last)
    prepare(model.unet, "bf16")
    config = LoopConfig(
        steps=10**6,
        minutes=stage.minutes if minutes is None else minutes,
        lr=stage.lr,
        decay=stage.decay,
        precision="bf16",
        seed=seed,
    )
    trainer = Trainer(model, loss, config, folder / name)
    trainer.resume()
    figures = trainer.run(Crops(pictures, stage.batch, stage.patch, seed).stream)
    averaged = trainer.ema.averaged(model)
    trainable = sum(p.numel() for p in trainer.parameters)
    weights = averaged.state_dict()
    if stage.lora_rank:
        weights = {k: v for k, v in weights.items() if "lora_" in k}
    write_safetensors(folder / name / "model.safetensors", weights)
    figures |= {
        "stage": name,
        "trainable": trainable,
        "unet_params": sum(p.numel() for n, p in model.unet.named_parameters() if "lora_" not in n),
        "batch": stage.batch,
        "patch": stage.patch,
        "threads": torch.get_num_threads(),
    }
    (folder / name / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures
