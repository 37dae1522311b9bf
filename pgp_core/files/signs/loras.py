"""LoRAs of every spelling, and the model that one is for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .names import Kind, Names, Sign

_GOES = "for --lora, or ComfyUI's Load LoRA"
_SIGN = Sign(
    "a LoRA",
    like=(
        r"lora_|.*\.lora_(?:A|B|down|up|linear|mid)|.*(?:_lora|lora_layer)\.(?:down|up)|.*\.(?:hada_w\d|lokr_w\d|oft_)"
        r"|.*\.dora_scale|.*\.diff(?:_b)?$|.*lora_magnitude_vector",
    ),
)

#: Layers of text encoders.
_TEXT = re.compile(
    r"(?:base_model\.model\.)?(?:lora_te\d?_|lycoris_te\d?_|lycoris_text_model|text_encoders?(?:_\d)?\.|te\d?\.|clip_[lgh]\."
    r"|text_model\.|cond_stage_model\.|conditioner\.)"
)
#: What other models' LoRAs have in their names, dots as underscores. Of these, some begin as SDXL's do.
_BASES = (
    ("a video motion module (AnimateDiff)", r"motion_modules|temporal_transformer"),
    ("Stable Cascade", r"^lora_prior_"),
    ("a diffusion transformer (HunyuanVideo)", r"double_blocks_\d+_img_(?:mlp_fc1|mod_linear)"),
    ("Flux or a model of its kind", r"(?:double|single)_blocks_\d|single_transformer_blocks_\d"),
    ("Stable Diffusion 3", r"joint_blocks_\d"),
    ("a diffusion transformer (Qwen-Image)", r"transformer_blocks_\d+_(?:img|txt)_m(?:lp|od)_"),
    (
        "a diffusion transformer (Stable Diffusion 3 or the like)",
        r"(?:^|_)transformer_blocks_\d+_attn_(?:add_[qkv]_proj|to_q|to_k|to_v|to_out)",
    ),
    (
        "a diffusion transformer (Wan)",
        r"(?:^|_)blocks_\d+_(?:self_attn|cross_attn|ffn)_(?:[qkvo]|0|2|k_img|v_img)(?:_|$)",
    ),
    ("a diffusion transformer (Z-Image or Lumina)", r"(?:^|_)layers_\d+_(?:attention_|feed_forward_w)"),
    ("a language model", r"model_layers_\d+_(?:self_attn|mlp)_"),
    (
        "a diffusion transformer",
        r"^(?:transformer_|lora_transformer_|diffusion_model_(?:blocks|layers|transformer_blocks)_"
        r"|lora_unet_(?:blocks|layers)_)",
    ),
    ("a ControlNet", r"controlnet|input_hint_block|zero_conv"),
)
#: Modules that Stable Diffusion 1.5, 2 and SDXL's refiner have and SDXL has not.
_FOUR_SCALES = re.compile(
    r"(?:^|_)(?:down_blocks_0_attentions|(?:down|up)_blocks_3|up_blocks_2_attentions|input_blocks_(?:[12]_1|9|1[01])_"
    r"|output_blocks_(?:9|1[01])_)"
)
_OF_A_UNET = re.compile(r"(?:^|_)(?:down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)_")
#: Tensors whose second side is the width of the tokens.
_TOKENS_IN = re.compile(r"attn2[._](?:processor[._])?to_[kv].*(?:lora_A|lora_down|\.down)\b")
_BY_TOKENS = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2", 1280: "SDXL's refiner", 2048: "SDXL"}
#: Kohya numbers the text encoders where there are two.
_SECOND_ENCODER = re.compile(r"lora_te2_|text_encoder_2\.|clip_g\.")


def base_of(tensors: Mapping[str, tuple[int, ...]]) -> str | None:
    """The model that a LoRA is for; None where nothing says so.

    Args:
        tensors: its names and shapes.
    """
    names = {k: k.replace(".", "_") for k in tensors if not _TEXT.match(k)}
    for what, pattern in _BASES:
        compiled = re.compile(pattern)
        if any(compiled.search(flat) for flat in names.values()):
            return what
    widths = {_second(tensors[k]) for k in names if _TOKENS_IN.search(k)}
    if said := [_BY_TOKENS[w] for w in sorted(w for w in widths if w in _BY_TOKENS)]:
        return said[0]
    if any(_FOUR_SCALES.search(flat) for flat in names.values()):
        return "Stable Diffusion 1.5 or 2, or SDXL's refiner"
    if any(_OF_A_UNET.search(flat) for flat in names.values()):
        return "SDXL"
    if names or not tensors:
        return None
    return "SDXL's text encoders" if any(map(_SECOND_ENCODER.match, tensors)) else "text encoders"


def _second(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) > 1 else 0


def kind(names: Names, tensors: Iterable[str]) -> Kind | None:
    """A LoRA, and what for."""
    if not _SIGN.holds(names):
        return None
    base = base_of(tensors) if isinstance(tensors, Mapping) else None
    if base is None:
        return Kind("a LoRA", _GOES, "load the model, then the LoRA")
    goes = _GOES if base in ("SDXL", "SDXL's text encoders") else "for ComfyUI's Load LoRA, on its own model"
    return Kind(f"a LoRA for {base}", goes, "load the model, then the LoRA")
