"""How strong a LoRA's layers are where the weights do not say so: from diffusers' metadata or PEFT's configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import CheckpointError, name_some
from ...files.boundary import parsing
from ...files.json_format import loads

#: diffusers' metadata on a LoRA.
DIFFUSERS_KEY = "lora_adapter_metadata"
#: LoRAs that start in these ways change the base model's own weights too.
_OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Settings:
    """What a file's own alphas leave open.

    Attributes:
        alpha: of every layer; None for each layer's own rank, so that the scale is 1.
        alphas: by module, or the end of its name.
        rank: that the configuration says, or None.
        root: the scale is alpha by the rank's square root (rank-stabilised LoRA).
        always: LoKr's scale counts even where neither factor is a product, as in PEFT.
    """

    alpha: float | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    rank: float | None = None
    root: bool = False
    always: bool = False

    def scale(self, module: str, rank: int) -> float:
        """The scale of a layer of this rank that has no alpha of its own."""
        named = [v for k, v in self.alphas.items() if module == k or module.endswith(f".{k}")]
        alpha = named[0] if named else self.alpha
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.root else rank)


def from_metadata(metadata: Mapping[str, str], source: str) -> Settings:
    """Settings from a file's metadata; the weights alone decide where there is none.

    Raises:
        CheckpointError: if it is damaged, or the LoRA is for other weights.
    """
    text = metadata.get(DIFFUSERS_KEY)
    if text is None:
        return Settings()
    with parsing(f'{source}: its metadata "{DIFFUSERS_KEY}"', CheckpointError):
        whole = loads(text)
        config = {k.removeprefix("unet."): v for k, v in whole.items() if k.startswith("unet.")}
    # One that was saved without the model's name.
    return from_config(config or whole, source)


def from_config(config: Mapping[str, Any], source: str) -> Settings:
    """Settings from PEFT's configuration of an adapter.

    Raises:
        CheckpointError: if it is damaged, or the adapter is of a kind, or for weights, that are not known.
    """
    kind = str(config.get("peft_type") or "LORA").rpartition(".")[2].upper()
    if kind not in ("LORA", "LOHA", "LOKR"):
        raise CheckpointError(f"{source} is {kind}, not LoRA, LoHa or LoKr: merge it into the UNet elsewhere")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_OTHER_BASE):
        raise CheckpointError(
            f"{source} was trained by {start}, beside other weights than the base model's: convert it with PEFT "
            "(path_initial_model_for_weight_conversion), or merge it there"
        )
    with parsing(f"{source}: its configuration", CheckpointError):
        alpha = config.get("lora_alpha", config.get("alpha"))
        rank = config.get("r")
        alphas = {str(k): _number(v) for k, v in (config.get("alpha_pattern") or {}).items()}
        settings = Settings(
            None if alpha is None else _number(alpha),
            alphas,
            None if rank is None else _number(rank),
            bool(config.get("use_rslora")),
            kind == "LOKR",
        )
    odd = [k for k in alphas if not all(c.isalnum() or c in "._" for c in k)]
    if odd:
        raise CheckpointError(f"{source} has alphas by patterns, which are not applied: {name_some(odd)}")
    return settings


def _number(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no number")
    return number
