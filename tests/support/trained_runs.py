"""What a user's runs leave, made by the command line on a narrow SDXL: fine-tuned, healed, distilled in two stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sdxl_files
from PIL import Image

from pgp_core.cli import main

COMMON = """
[run]
folder = "{folder}/runs/{name}"
steps = 2
precision = "float32"
result_dtype = "fp32"
device = "cpu"

[model]
kind = "sdxl"
sdxl = "sdxl"
{model}

[data]
kind = "folder"
folder = "pictures"
patch = 64
accumulation = 2
workers = 0

[optimizer]
# High, so that two steps are seen in what a model makes.
lr = 1e-2

[ema]
enabled = false
"""
FINETUNED = 'base = "runs/finetune/unet.safetensors"'
GUIDED = f'{FINETUNED}\nguidance = "runs/finetune/guidance.safetensors"\ntrain = ["lora"]\nlora_rank = 4\n'
MODELS = {
    "finetune": 'plan = "pgp-sdxl"\nguidance = "fresh"\n',
    "heal": f'{FINETUNED}\nguidance = "none"\ntrain = ["lora"]\nlora_rank = 2\n',
    "distill": GUIDED,
    "distill-2": GUIDED,
}
S1 = {
    "distill": '[s1]\nstage = 1\nmeasure = "haarpsi"\n',
    "distill-2": '[s1]\nstage = 2\nmeasure = "haarpsi"\nfirst_lora = "distill"\n',
}


def make(folder: Path) -> Path:
    """Run them all.

    Returns:
        the folder with ``sdxl/``, ``pictures/``, a TOML file and ``runs/<name>/`` for each of :data:`MODELS`.
    """
    folder.mkdir(exist_ok=True)
    sdxl_files.folder(folder / "sdxl", sdxl_files.unet_weights())
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        x = np.kron(rng.integers(0, 255, (12, 14, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        Image.fromarray(x).save(folder / "pictures" / f"{i}.png")
        (folder / "pictures" / f"{i}.txt").write_text(f"a picture, {i}")
    for name, model in MODELS.items():
        config = folder / f"{name}.toml"
        config.write_text(COMMON.format(folder=folder, name=name, model=model) + S1.get(name, ""))
        assert main(["train", "distill" if name in S1 else "finetune", str(config)]) == 0
    return folder
