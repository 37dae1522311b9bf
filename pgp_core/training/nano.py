"""How nano is made: nine runs, each of which resumes, each starting from the one before.

==========  =============================================================================================
regress     full UNet, LQ added after ``conv_in``; the last timesteps only, a regression of the residual
full        the same model on all timesteps: nano's base, what FaithDiff is to PGP-DiffSR
coarse      coarse plan applied, healed
fine        fine plan applied, healed
teach       PEAM added; it learns alone, and the LQ comes through it alone: beside a UNet that learns too and has the
            LQ at ``conv_in`` it learns to be silent (seen: without it nothing changed after 2,400 steps)
peam        everything learns; every fourth sample goes without the LQ at ``conv_in``, so PEAM has to bring it
finish      a last cosine with everything in place; this model ships
s1          a rank-16 LoRA on it for one step
s1-2        the same LoRA goes on, towards what looks right; the score model is stage full
==========  =============================================================================================

Their configurations ship as ``assets/configs/nano-<stage>.toml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..progress import Say
from .config import RunConfig, load_config
from .training_run import train

STAGES = ("regress", "full", "coarse", "fine", "teach", "peam", "finish", "s1", "s1-2")


def stage_config(name: str, folder: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A stage's configuration, its run in ``folder``.

    Raises:
        ConfigError: if there is no such stage, or an override is wrong.
    """
    return load_config(Path(f"nano-{name}"), [f"run.folder={folder / name}", *overrides])


def run_stage(
    name: str,
    folder: Path,
    overrides: Sequence[str] = (),
    threads: int | None = None,
    say: Say = lambda _: None,
    progress: bool = True,
) -> dict[str, Any]:
    """Run, or resume, one stage.

    Args:
        folder: with a folder for each stage: ``state.pt`` and ``log.jsonl`` while it runs, ``model.safetensors``
            (averaged weights) and ``figures.json`` when it is done.
        overrides: ``section.key=value`` in place of the recipe's.
        threads: of PyTorch.

    Returns:
        the figures.
    """
    if threads:
        torch.set_num_threads(threads)
    return {"stage": name, **train(stage_config(name, folder, overrides), say, progress)}
