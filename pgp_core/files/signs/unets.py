"""UNets of Stable Diffusion's kind, in both spellings, by what their weights have and how wide they are."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .names import Kind

#: Some UNets of Stable Diffusion are made for one more picture beside the noisy one, or for a mask.
_INPUTS = {9: "for inpainting", 8: "for editing or variations", 7: "for enlarging (x4-upscaler)", 5: "with depth"}
#: Widths of the tokens that its cross-attention takes.
_TOKENS = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2", 1280: "SDXL's refiner"}
_TOKENS_IN = re.compile(r".*\.attn2\.to_k\.weight$")
#: It always has the first picture beside the noisy ones.
_VIDEO = "Stable Video Diffusion"
_UNKNOWN = "Stable Diffusion 1.5 or 2"


def name_of(bare: Mapping[str, tuple[int, ...]]) -> str:
    """Whose UNet it is: of Stable Diffusion, or of SDXL's kind.

    Args:
        bare: its names without prefix, and shapes.
    """
    name = _base(bare)
    inputs = _side(bare, ("input_blocks.0.0.weight", "conv_in.weight"), 1)
    return f"{name} {_INPUTS[inputs]}" if inputs in _INPUTS and name != _VIDEO else name


def kind(bare: Mapping[str, tuple[int, ...]]) -> Kind | None:
    """A UNet that no family is made of, or None.

    Args:
        bare: its names without prefix, and shapes.
    """
    name = name_of(bare)
    if name == "SDXL":
        return None
    if _side(bare, ("input_blocks.0.0.weight", "conv_in.weight"), 1) == 9:
        return Kind(
            f"an inpainting UNet (9 input channels) of {_base(bare)}", instead="a plain SDXL UNet (4) is needed"
        )
    if name == "SDXL's refiner":
        return Kind(f"{name}, a UNet of four scales", instead="the base model is needed")
    return Kind(f"a UNet of {name}", instead="PGP-DiffSR needs SDXL's")


def _base(bare: Mapping[str, tuple[int, ...]]) -> str:
    if any("time_stack." in k or "temporal_transformer_blocks." in k for k in bare):
        return _VIDEO
    if "encoder_hid_proj.weight" in bare:
        return "Kolors" if _side(bare, ("encoder_hid_proj.weight",), 0) == 2048 else "another kind"
    if any(k.startswith(("encoder_hid_proj.", "add_embedding.image_norm", "add_embedding.image_proj")) for k in bare):
        return "Kandinsky 2 or another kind"
    width = _side({k: v for k, v in bare.items() if _TOKENS_IN.match(k)}, (), 1)
    labelled = _side(bare, ("label_emb.0.0.weight", "add_embedding.linear_1.weight"), 1) is not None
    four = any(k.startswith(("input_blocks.9.", "down_blocks.3.")) for k in bare)
    if not labelled:
        if any(k.startswith(("label_emb.", "class_embedding.")) for k in bare):
            return "Stable Diffusion 2" if width == 1024 else "another kind, with classes"
        return _TOKENS.get(width or 0, _UNKNOWN)
    if not four:
        return "SDXL"
    return "Stable Diffusion 2 unCLIP" if width == 1024 else "SDXL's refiner"


def _side(bare: Mapping[str, tuple[int, ...]], names: tuple[str, ...], axis: int) -> int | None:
    """A side of the first of some tensors that is there; of any, where none is named."""
    for name in names or bare:
        shape = bare.get(name)
        if shape is not None and len(shape) > axis:
            return shape[axis]
    return None
