"""From a file's tensors to layers: every key is either used, counted as left out, or refused by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import CheckpointError, name_some
from ...files.what_it_is import described
from ..topology import KeyMap, split_block
from .layers import NAMES, Layer, build
from .modules import flat
from .names import Key, architecture, other_kind, read_key
from .settings import Settings

#: What files that have layers, or other things that LoRAs bring along, are described as.
_OURS = ("a LoRA", "an embedding")
#: What a layer's keys begin with in the names of trainers, and in files of ours.
PREFIX = "lora_unet_"


@dataclass(frozen=True)
class LoRA:
    """A LoRA for an SDXL-shaped UNet.

    Attributes:
        source: what to call it.
        layers: by diffusers' name of the module.
        foreign: modules of layers that no SDXL UNet has, as the file names them.
        text: layers for text encoders.
        embeddings: tensors of textual inversions.
        shown: a few of the file's keys, for messages.
    """

    source: str
    layers: Mapping[str, Layer]
    foreign: tuple[str, ...] = ()
    text: int = 0
    embeddings: int = 0
    shown: str = ""

    def fitted(self, unet: torch.nn.Module) -> list[tuple[str, Any, Layer]]:
        """The layers that this UNet has a module for: its name, the module, the layer.

        Raises:
            CheckpointError: if there is none, or one does not fit.
        """
        modules = {n: m for n, m in unet.named_modules() if n in self.layers and hasattr(m, "weight")}
        if not modules:
            raise CheckpointError(f"{self.source} changes no layer of this UNet: {self._why_none()}")
        found = [(n, modules[n], self.layers[n]) for n in sorted(modules)]
        for _, module, layer in found:
            wrong = layer.misfit(module)
            if wrong:
                raise CheckpointError(f"{self.source}: {layer.stem} {wrong}")
        return found

    def left_out(self, fitted: Iterable[str]) -> list[str]:
        """What is not applied to a UNet, in a line for each reason.

        Args:
            fitted: names of the modules that layers were found for.
        """
        total = len(self.layers) + len(self.foreign) + self.text
        gone = self.layers.keys() - set(fitted)
        removed = [n for n in gone if split_block(n + ".") is not None]
        foreign = [*self.foreign, *(self.layers[n].stem for n in gone if n not in removed)]
        nothing = sum(layer.kind is not None and layer.scale == 0 for layer in self.layers.values())
        # fmt: off
        told = [
            (len(removed), "for transformer blocks that this UNet does not have, and are left out"),
            (len(foreign), f"for modules that this UNet does not have ({name_some(foreign)}), and are left out"),
            (self.text, "for text encoders, and are left out: prompts are encoded apart"),
            (nothing, "of strength 0 (alpha is 0) and change nothing"),
        ]
        # fmt: on
        lines = [f"{self.source}: {n} of its {total} layers are {what}" for n, what in told if n]
        if self.embeddings:
            lines.append(f"{self.source}: its textual inversions ({self.embeddings} tensors) are left out")
        return lines

    def _why_none(self) -> str:
        if self.layers:
            return f"its {len(self.layers)} layers are for blocks that a plan removed ({name_some(self.layers)})"
        if self.text and not self.foreign:
            return f"its {self.text} layers are for text encoders, whose prompts are encoded apart"
        return f"its keys are {self.shown}"


def read(
    weights: Mapping[str, torch.Tensor],
    source: str = "LoRA",
    settings: Settings | None = None,
    names: KeyMap | None = None,
) -> LoRA:
    """The layers in a file's tensors, whatever tool wrote them.

    Read are plain LoRA, LoCon, DoRA, LoHa, LoKr, whole differences and values of weights and biases, in the names of
    kohya, LyCORIS, PEFT, ComfyUI and every age of diffusers.

    Args:
        settings: alphas of layers that have none of their own.
        names: of the UNet that it is for; by default SDXL's.

    Raises:
        CheckpointError: if a key is of a kind that is not applied or not known, a layer is incomplete, a tensor is
            not finite, or it is a LoRA for another model than SDXL.
    """
    settings = settings or Settings()
    keys = {k: read_key(k, names or KeyMap()) for k in weights}
    shapes = {k: tuple(v.shape) for k, v in weights.items()}
    what = described(shapes)
    if what and not what.startswith(_OURS) and not any(v.part or other_kind(k) for k, v in keys.items()):
        raise CheckpointError(f"{source} holds {what}, no LoRA for an SDXL UNet: choose a LoRA's file")
    if other := architecture(shapes):
        raise CheckpointError(f"{source} changes no layer of this UNet: it is for {other}, not for SDXL")
    unet = {k: v for k, v in keys.items() if v.where == "unet"}
    _refuse_other_kinds([k for k, v in unet.items() if not v.part], source)
    parts, stems = _gathered(unet, weights, source)
    _refuse_numbers(unet, weights, source)
    layers = {m: build(stems[m], m, p, settings, source) for m, p in parts.items()}
    return LoRA(
        source,
        layers,
        tuple(sorted({v.stem for v in unet.values() if v.module is None})),
        len({v.stem for v in keys.values() if v.where == "text"}),
        sum(v.where == "embedding" for v in keys.values()),
        name_some(weights),
    )


def names_of(unet: torch.nn.Module) -> KeyMap:
    """How the modules of a diffusers UNet are called in LDM's scheme."""
    levels = [m for n, m in unet.named_modules() if n == "down_blocks.0.resnets"]
    return KeyMap(sum(1 for _ in levels[0].children())) if levels else KeyMap()


def canonical(lora: Mapping[str, torch.Tensor], source: str = "LoRA") -> dict[str, torch.Tensor]:
    """A LoRA's tensors for the UNet under kohya's names, with diffusers' names of modules.

    Raises:
        CheckpointError: as :func:`read`.
    """
    read(lora, source)
    out = {}
    for key, value in lora.items():
        known = read_key(key)
        if known.where == "unet" and known.module is not None:
            out[f"{PREFIX}{flat(known.module)}.{NAMES.get(known.part, known.part)}"] = value
    return out


def _gathered(
    keys: Mapping[str, Key], weights: Mapping[str, torch.Tensor], source: str
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    """Parts by module, and what the file calls the module."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    stems: dict[str, str] = {}
    for name, key in keys.items():
        if key.module is None:
            continue
        own = parts.setdefault(key.module, {})
        if key.part in own:
            raise CheckpointError(f"{source} has {key.module} twice, once as {name}: it holds two LoRAs, split it")
        own[key.part] = weights[name]
        stems.setdefault(key.module, key.stem)
    return parts, stems


def _refuse_other_kinds(keys: list[str], source: str) -> None:
    if not keys:
        return
    kinds = sorted({kind for k in keys if (kind := other_kind(k))})
    if kinds:
        raise CheckpointError(
            f"{source} is {' and '.join(kinds)}, at least in part, which is not applied ({name_some(keys)}): merge it "
            "into the UNet elsewhere, in ComfyUI for one"
        )
    raise CheckpointError(f"{source} has keys that no LoRA for an SDXL UNet has: {name_some(keys)}")


def _refuse_numbers(keys: Mapping[str, Key], weights: Mapping[str, torch.Tensor], source: str) -> None:
    whole = [k for k, v in keys.items() if v.part != "alpha" and not weights[k].is_floating_point()]
    if whole:
        raise CheckpointError(f"{source}: these tensors hold no floating-point numbers: {name_some(whole)}")
    endless = [k for k in keys if not bool(weights[k].float().isfinite().all())]
    if endless:
        raise CheckpointError(f"{source} is damaged: {name_some(endless)} are not finite: get it again")
