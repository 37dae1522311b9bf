"""LoRA files for an SDXL-shaped UNet, in the naming of every tool that writes them.

Keys of ours are ``lora_unet_<module name with underscores>`` (diffusers' names) with ``.lora_down.weight``,
``.lora_up.weight`` and ``.alpha``. Block numbers are the original ones, so a LoRA fits every plan.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .merging import Beside, merge
from .reading import PREFIX, LoRA, canonical, names_of, read
from .settings import Settings, from_config, from_metadata

__all__ = [
    "PREFIX",
    "Beside",
    "LoRA",
    "Settings",
    "diffusers_names",
    "from_config",
    "from_metadata",
    "from_peft",
    "merge",
    "names_of",
    "read",
]


def diffusers_names(weights: Mapping[str, torch.Tensor], source: str = "LoRA") -> dict[str, torch.Tensor]:
    """A LoRA's UNet layers under the names that files of ours have, whatever tool wrote them.

    Text encoders' layers are left out: prompts are encoded apart.

    Raises:
        CheckpointError: as :func:`read`.
    """
    return canonical(weights, source)


def from_peft(weights: Mapping[str, torch.Tensor], alpha: float | None = None) -> dict[str, torch.Tensor]:
    """Rename PEFT's keys (``<module>.lora_A[.default].weight``), adding ``alpha`` (the scale times the rank).

    Args:
        alpha: of every layer; by default each layer's own rank, so that the scale is 1.
    """
    out = {}
    for key, value in weights.items():
        stem, _, tail = key.partition(".lora_")
        name, down = PREFIX + stem.replace(".", "_"), tail.startswith("A")
        out[f"{name}.lora_{'down' if down else 'up'}.weight"] = value
        rank = len(value) if down else value.shape[1]
        out[f"{name}.alpha"] = torch.tensor(float(rank if alpha is None else alpha))
    return out
