"""Writes a file of FaithDiff's full size and exact key layout, with random weights; 5.2 GB, and as much memory.

    python tests/support/make_full_size.py DIR

Then, to see the real sizes pass through everything once:

    pgp-diffsr convert DIR/FaithDiff.bin -o DIR
    pgp-diffsr guidance init -o DIR/pgp-guidance.safetensors --faithdiff DIR/FaithDiff.bin --plan pgp-sdxl
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from faithdiff_file import Authors

from pgp_core.unet.known import SDXL_SHAPE
from pgp_core.unet.on_diffusers import build_unet


def main() -> None:
    """Draw and save."""
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {**build_unet(SDXL_SHAPE).state_dict(), **Authors((128, 256, 512, 512), 320).state_dict()}
    pattern = torch.randn(1 << 22).bfloat16()
    weights = {}
    for i, (key, value) in enumerate(shapes.items()):
        if value.dim() == 1:
            weights[key] = torch.full(
                value.shape, float("norm" in key or ".ln_" in key) * key.endswith("weight")
            ).bfloat16()
            continue
        # Outputs stay finite with a variance of 1 / fan-in.
        flat = torch.empty(value.numel(), dtype=torch.bfloat16)
        for start in range(0, len(flat), len(pattern)):
            flat[start : start + len(pattern)] = pattern.roll(i)[: len(flat) - start]
        weights[key] = flat.reshape(value.shape) * value[0].numel() ** -0.5
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / "FaithDiff.bin")


if __name__ == "__main__":
    main()
