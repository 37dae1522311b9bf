"""What the keys of a LoRA file mean: the prefixes and endings of diffusers, PEFT, kohya, LyCORIS and ComfyUI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ...files.signs.loras import base_of
from ..topology import KeyMap
from .modules import by_flat_name, flat

#: What may stand before a module's own, dotted or flat, name; more than one may.
_PREFIX = re.compile(
    r"(?:module\.|_orig_mod\.|base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|unet\."
    r"|lora_unet_|lycoris_unet_|lycoris_)+"
)
#: Layers of text encoders.
_TEXT = re.compile(
    r"(base_model\.model\.)?(lora_te\d?_|lycoris_te\d?_|lycoris_text_model|text_encoders?(_\d)?\.|te\d?\.|clip_[lgh]\.|text_model\."
    r"|cond_stage_model\.|conditioner\.)"
)
#: Textual inversions that trainers bundle.
_EMBEDDING = re.compile(r"(bundle_emb\.|emb_params$|string_to_param)|^clip_[lg]$")

_NAMED = r"(?:\.(?!weight$|bias$)[^.]+)?"
#: Ends of keys, and the part of a layer that each is. PEFT puts an adapter's name into them.
_TAILS = tuple(
    (re.compile(pattern + "$"), part)
    for pattern, part in (
        (r"\.lora_down\.weight", "down"),
        (r"\.lora_up\.weight", "up"),
        (r"\.lora_mid\.weight", "mid"),
        (rf"\.lora_A{_NAMED}(?:\.weight)?", "down"),
        (rf"\.lora_B{_NAMED}(?:\.weight)?", "up"),
        (rf"\.lora_B{_NAMED}\.bias", "up_bias"),
        (r"(?:_lora|\.lora|\.lora_linear_layer)\.down\.weight", "down"),
        (r"(?:_lora|\.lora|\.lora_linear_layer)\.up\.weight", "up"),
        (r"(?:_lora|\.lora|\.lora_linear_layer)?\.alpha", "alpha"),
        (r"\.dora_scale", "dora_scale"),
        (rf"\.lora_magnitude_vector{_NAMED}(?:\.weight)?", "magnitude"),
        *((rf"\.hada_{n}{_NAMED}", f"hada_{n}") for n in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
        *((rf"\.lokr_{n}{_NAMED}", f"lokr_{n}") for n in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
        (r"\.(?:diff|w_norm)", "diff"),
        (r"\.(?:diff_b|b_norm)", "diff_b"),
        (r"\.set_weight", "set"),
    )
)
#: Kinds that are not applied, by what their keys have.
_OTHER_KINDS = (
    ("OFT or BOFT", re.compile(r"\.(oft_|boft_)|\.rescale$")),
    ("GLoRA", re.compile(r"\.(a1|a2|b1|b2|bm)\.weight$|\.glora_")),
    ("IA3", re.compile(r"\.on_input$|\.ia3_")),
    ("VeRA", re.compile(r"\.?vera_")),
    ("a LoRA that enlarges weights", re.compile(r"\.reshape_weight$")),
    ("a LoCon with sparse biases", re.compile(r"\.bias_(indices|values|size)$")),
)


@dataclass(frozen=True)
class Key:
    """One key of a file.

    Attributes:
        stem: the key without its ending, as the file has it.
        part: one of those in :data:`_TAILS`, or "" where the ending is not known.
        where: ``unet``, ``text``, ``embedding``.
        module: diffusers' name of the module; None where SDXL's UNet has none of that name.
    """

    stem: str
    part: str
    where: str = "unet"
    module: str | None = None


@lru_cache(maxsize=1 << 14)
def read_key(key: str, names: KeyMap = KeyMap()) -> Key:  # noqa: B008 - it is frozen
    """What a key means in a LoRA for a UNet with these names."""
    if _EMBEDDING.search(key):
        return Key(key, "", "embedding")
    stem, part = key, ""
    for pattern, name in _TAILS:
        found = pattern.search(key)
        if found:
            stem, part = key[: found.start()], name
            break
    if _TEXT.match(key):
        return Key(stem, part, "text")
    return Key(stem, part, "unet", by_flat_name(names).get(bare(stem)))


def bare(stem: str) -> str:
    """A module's flat name without prefixes, whatever the file's spelling."""
    found = _PREFIX.match(stem)
    return flat((stem[found.end() :] if found else stem).replace(".processor.", "."))


def other_kind(key: str) -> str | None:
    """The kind of adapter that a key belongs to, if it is one that is known but not applied."""
    return next((kind for kind, pattern in _OTHER_KINDS if pattern.search(key)), None)


def architecture(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The model that a LoRA is for, where names or widths say that it is not SDXL."""
    base = base_of(shapes)
    return None if base in ("SDXL", "SDXL's text encoders", "text encoders") else base
