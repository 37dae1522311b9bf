"""How nano is made: seven stages, each a command that resumes, each starting from the one before.

==========  =============================================================================================
regress     full UNet, LQ added after ``conv_in``; the last timesteps only, a regression of the residual
full        the same model on all timesteps: nano's base, what FaithDiff is to PGP-DiffSR
coarse      coarse plan applied, healed
fine        fine plan applied, healed
peam        PEAM added; every fourth sample goes without the LQ at ``conv_in``, so PEAM has to bring it
finish      a last cosine with everything in place; this model ships
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

from .. import nano, pixel_codec, schedule
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
from .precision import fastest, prepare


@dataclass(frozen=True)
class Stage:
    """One stage of the recipe.

    Attributes:
        after: the stage whose weights it starts from.
        minutes: on one core with bfloat16 matrix units.
        drop_base: share of samples that the additive sites leave out.
    """

    after: str | None
    plan: str | None
    peam: bool
    minutes: float
    lr: float
    batch: int = 16
    patch: int = 64
    timesteps: tuple[int, int] = (0, 999)
    decay: float = 0.999
    drop_base: float = 0.0
    lora_rank: int | None = None


STAGES = {
    "regress": Stage(None, None, False, 5, 1e-3, timesteps=(900, 999)),
    "full": Stage("regress", None, False, 8, 1e-3),
    "coarse": Stage("full", "pgp-nano-coarse", False, 6, 8e-4),
    "fine": Stage("coarse", "pgp-nano", False, 60, 1e-3, batch=8, patch=128),
    "peam": Stage("fine", "pgp-nano", True, 25, 8e-4, batch=8, patch=128, drop_base=0.25),
    "finish": Stage("peam", "pgp-nano", True, 45, 8e-4, batch=8, patch=128, drop_base=0.1),
    "s1": Stage("finish", "pgp-nano", True, 12, 6e-4, batch=8, patch=128, lora_rank=16),
}

#: A PEAM is twelve plain convolutions in a row: at the UNet's learning rate its activations die.
LR_FACTORS = {"guidance.peam.": 0.3}

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
    """Freeze the model and put a LoRA on its UNet; alpha equals the rank, so the scale is 1.

    On ``conv_in`` it has full rank, and starts by shrinking the input to :data:`pgp_core.nano.S1_INPUT`.
    """
    from peft import LoraConfig

    model.requires_grad_(False)
    unet: Any = model.unet
    weight = unet.conv_in.weight.detach()
    full = {"conv_in": min(weight.flatten(1).shape)}
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=full,
        alpha_pattern=full,
        init_lora_weights="gaussian",
        target_modules=LORA_TARGETS,
    )
    unet.add_adapter(config)
    u, s, vh = torch.linalg.svd((nano.S1_INPUT - 1) * weight.flatten(1), full_matrices=False)
    for half, value in (("lora_A", s.sqrt()[:, None] * vh), ("lora_B", u * s.sqrt())):
        target = unet.get_submodule(f"conv_in.{half}.default").weight
        target.data.copy_(value.view_as(target))


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
        loss: Any = OneStepLoss(nano.SCALE, nano.S1_TIMESTEP, edges=0.25)
    else:
        loss = ResidualDiffusionLoss(
            nano.SCALE, nano.PREDICTION, timesteps=stage.timesteps, drop_base=stage.drop_base, std=nano.RESIDUAL_STD
        )
    precision = fastest(torch.device("cpu"))
    if precision == "bf16":
        model = model.to(memory_format=torch.channels_last)
    prepare(model.unet, precision)
    config = LoopConfig(
        steps=10**6,
        minutes=stage.minutes if minutes is None else minutes,
        lr=stage.lr,
        lr_factors=LR_FACTORS,
        decay=stage.decay,
        precision=precision,
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
        "peam_std": peam_std(averaged, Crops(pictures, stage.batch, stage.patch, seed).at(0)),
    }
    (folder / name / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


@torch.no_grad()
def peam_std(model: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> list[float]:
    """Is PEAM alive? Standard deviation of the input of each of its convolutions, halfway through sampling.

    A stack of plain convolutions can die in training: what reaches the last one is then a constant, whatever
    the picture. Empty where there is no PEAM.
    """
    found: list[float] = []
    convs = [conv for peam in model.guidance.peam.values() for conv in peam.convs]
    handles = [
        conv.register_forward_pre_hook(lambda _m, args: found.append(round(float(args[0].float().std()), 4)))
        for conv in convs
    ]
    try:
        lq, hq = batch
        n = len(lq)
        t = torch.full((n,), 500)
        x0 = nano.SCALE * (pixel_codec.encode(hq) - pixel_codec.encode(lq))
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
        if convs:
            model(schedule.add_noise(x0, noise, t), t, lq, torch.ones(n, dtype=torch.bool))
    finally:
        for handle in handles:
            handle.remove()
    return found
