"""One layer of a LoRA: how it changes a module's weight and bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import CheckpointError
from .kinds import Difference, Hadamard, Kind, Kronecker, Matrices, Misfit
from .settings import Settings

#: Parts that make a kind, and those of them that must be there.
_FAMILIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "lora": (("down", "up", "mid"), ("down", "up")),
    "loha": (
        ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
        ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    ),
    "lokr": (("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"), ()),
    "diff": (("diff",), ()),
    "set": (("set",), ()),
}
#: The endings of keys that messages and files of ours have.
NAMES = {
    "down": "lora_down.weight",
    "up": "lora_up.weight",
    "up_bias": "lora_B.bias",
    "mid": "lora_mid.weight",
    "magnitude": "lora_magnitude_vector",
    "set": "set_weight",
}


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        stem: the module as the file names it, for messages.
        kind: what is added to the weight, or None.
        scale: of that; 0 changes nothing.
        magnitude: of a DoRA: the length of each row, or column, that the weight has afterwards; or None.
        by_rows: whether that is of rows (output channels).
        bias: what is added to the bias, or None.
        value: what the weight becomes, or None.
    """

    stem: str
    kind: Kind | None = None
    scale: float = 1.0
    magnitude: torch.Tensor | None = None
    by_rows: bool = True
    bias: torch.Tensor | None = None
    value: torch.Tensor | None = None

    def misfit(self, module: Any) -> str | None:
        """Why this layer does not fit a module, or None."""
        weight, bias = module.weight, getattr(module, "bias", None)
        shape = tuple(weight.shape)
        if self.kind is not None and (self.kind.rows != shape[0] or self.kind.size != weight.numel()):
            return f"does not fit a weight of shape {shape}"
        if self.value is not None and self.value.numel() != weight.numel():
            return f"does not fit a weight of shape {shape}"
        if self.magnitude is not None:
            length = shape[0] if self.by_rows else shape[1] if len(shape) > 1 else None
            if self.magnitude.numel() != length:
                return f"has {self.magnitude.numel()} lengths for a weight of shape {shape}"
        if self.bias is not None and (bias is None or self.bias.numel() != bias.numel()):
            return "changes a bias that is not there" if bias is None else f"does not fit a bias of {bias.numel()}"
        return None

    def change(self, weight: torch.Tensor, strength: float = 1.0) -> torch.Tensor | None:
        """What a weight becomes less what it is: of its shape, float32; None where it stays.

        A strength below or above 1 goes that part of the way, as ComfyUI does it.
        """
        if self.value is not None:
            return strength * (self.value.to(weight.device, torch.float32).reshape(weight.shape) - weight.float())
        if self.kind is None:
            return None
        delta = self.kind.delta(weight.device).reshape(weight.shape)
        if self.magnitude is None:
            return strength * delta
        whole = weight.float() + delta
        rows = whole if self.by_rows else whole.transpose(0, 1)
        length = rows.flatten(1).norm(dim=1) + torch.finfo(torch.float32).eps
        gain = self.magnitude.to(whole).flatten() / length
        shape = [1] * whole.dim()
        shape[0 if self.by_rows else 1] = -1
        return strength * (whole * gain.view(shape) - weight.float())


def build(stem: str, module: str, parts: Mapping[str, torch.Tensor], settings: Settings, source: str) -> Layer:
    """A layer from its parts.

    Raises:
        CheckpointError: if it is incomplete, its parts do not fit each other, or it is of two kinds.
    """
    families = {f for f, (own, _) in _FAMILIES.items() if any(p in parts for p in own)}
    if len(families) > 1:
        raise CheckpointError(
            f"{source}: {stem} is of two kinds at once ({', '.join(sorted(families))}): merge it elsewhere"
        )
    if not families and not {"diff_b"} & parts.keys():
        raise CheckpointError(f"{source} is incomplete: {stem} has {_listed(parts)} and nothing that goes with it")
    family = next(iter(families), "")
    lacking = [p for p in _FAMILIES[family][1] if p not in parts] if family else []
    if lacking:
        raise CheckpointError(f"{source} is incomplete: it lacks {stem}.{NAMES.get(lacking[0], lacking[0])}")
    alpha = _alpha(parts, stem, source)
    dora = parts.get("magnitude", parts.get("dora_scale"))
    extra = [p for p in ("magnitude", "dora_scale", "up_bias") if p in parts and family not in ("lora", "loha", "lokr")]
    if extra or ("up_bias" in parts and family != "lora"):
        raise CheckpointError(
            f"{source} is incomplete: {stem} has {_listed(extra or ['up_bias'])} and nothing that goes with it"
        )
    try:
        scale = _scale(family, parts, alpha, module, settings)
        kind = _kind(family, parts, scale)
        by_rows = True
        if "dora_scale" in parts and kind is not None:
            # ComfyUI's rule: (rows, 1, ...) or (1, columns, ...).
            by_rows = parts["dora_scale"].dim() == 0 or len(parts["dora_scale"]) == kind.rows
    except Misfit as e:
        raise CheckpointError(f"{source}: the parts of {stem} do not fit each other: {e}") from None
    bias = parts.get("diff_b")
    if "up_bias" in parts:
        if bias is not None:
            raise CheckpointError(f"{source}: {stem} changes its bias twice")
        bias = parts["up_bias"].float() * scale
    return Layer(stem, kind, scale, dora, by_rows, bias, parts.get("set"))


def _kind(family: str, parts: Mapping[str, torch.Tensor], scale: float) -> Kind | None:
    if family == "lora":
        return Matrices.of(parts, scale)
    if family == "loha":
        return Hadamard.of(parts, scale)
    if family == "lokr":
        return Kronecker.of(parts, scale)
    return Difference(parts["diff"]) if family == "diff" else None


def _scale(
    family: str, parts: Mapping[str, torch.Tensor], alpha: float | None, module: str, settings: Settings
) -> float:
    """Alpha by the rank, as LyCORIS, PEFT and ComfyUI take it."""
    ranked = {"lora": ("down",), "loha": ("hada_w1_b",), "lokr": ("lokr_w2_b", "lokr_w1_b")}.get(family, ())
    rank = next((len(parts[p]) for p in ranked if p in parts and parts[p].dim()), 0)
    if family == "lokr" and not rank:
        # Both factors whole: no rank, so nothing to divide by, but for PEFT.
        return (
            settings.scale(module, int(settings.rank)) if settings.always and settings.rank and alpha is None else 1.0
        )
    if not family or not rank:
        return 1.0
    return settings.scale(module, rank) if alpha is None else alpha / rank


def _alpha(parts: Mapping[str, torch.Tensor], stem: str, source: str) -> float | None:
    """A layer's own alpha, whatever its shape and type."""
    value = parts.get("alpha")
    if value is None:
        return None
    if value.numel() != 1:
        raise CheckpointError(f"{source}: {stem}.alpha is {value.numel()} numbers, not one")
    return float(value.reshape(()).item())


def _listed(parts: object) -> str:
    return ", ".join(sorted(NAMES.get(p, p) for p in parts))  # type: ignore[attr-defined]
