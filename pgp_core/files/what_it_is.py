"""What a file most looks like, by the names of its tensors, for the message when it is not what was wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .prefixes import find_home

#: UNets' names begin with these, in both schemes.
UNET_HEADS = ("input_blocks.", "down_blocks.")
VAE_HEADS = ("decoder.conv_in.",)
#: Where FaithDiff's file keeps what is not the UNet (the spelling is its authors').
FAITHDIFF_GROUPS = ("denoise_encoder.", "condition_embedding.", "information_transformer_layes.", "spatial_ch_projs.")
#: What may stand beside a UNet that has no prefix.
OTHER_PARTS = (
    *("first_stage_model.", "vae.", "conditioner.", "cond_stage_model.", "text_encoder.", "text_encoder_2."),
    *("text_encoders.", "clip_l.", "clip_g."),
)

_BLOCKS = (
    r"(?:(?:model|diffusion_model|transformer|module|net)\.)*"
    r"(?:double_blocks|joint_blocks|transformer_blocks|single_transformer_blocks|single_blocks)\.\d"
)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        what: in words, with an article.
        advice: what to do with it.
        names: a name that only this kind has; matched from its beginning.
    """

    what: str
    advice: str
    names: str


_UNET = "choose the UNet's file or a whole checkpoint"

#: The first that fits is the answer.
_KINDS = (
    Kind(
        "a LoRA",
        "load the model, then the LoRA",
        r"lora_|.*\.lora_(?:A|B|down|up|linear|mid)|.*(?:_lora|lora_layer)\.(?:down|up)|.*\.(?:hada_w\d|lokr_w\d|oft_)"
        r"|.*\.dora_scale|.*\.diff(?:_b)?$|.*lora_magnitude_vector",
    ),
    Kind("guidance", _UNET + "; this one is for Load PGP-DiffSR Guidance or --guidance", r"pgp\."),
    Kind(
        "saved CONDITIONING",
        _UNET + "; this one is for Load PGP-DiffSR Conditioning or --conditioning",
        r"\d+\.(?:context$|options\.)",
    ),
    Kind(
        "a ControlNet",
        _UNET + "; this one works beside a model, by its own loader",
        r"control_model\.|(?:.*\.)?controlnet_|(?:.*\.)?input_hint_block\.|(?:.*\.)?zero_convs\.|lllite_|"
        r"(?:.*\.)?task_embedding$",
    ),
    Kind("an IP-Adapter", _UNET + "; this one works beside a model, by its own loader", r"ip_adapter|image_proj"),
    Kind("a motion module of AnimateDiff", _UNET, r".*motion_modules\."),
    Kind(
        "an upscaler of ESRGAN's kind",
        _UNET + "; this one is for ComfyUI's Load Upscale Model",
        r"(?:params_ema\.|params\.|module\.)*(?:conv_first\.|model\.0\.weight$|model\.1\.sub\.|body\.0\.(?:rdb\d|weight$)"
        r"|conv_up1\.|RRDB_trunk|layers\.0\.residual_group)",
    ),
    Kind("a T2I-Adapter", _UNET + "; this one works beside a model, by its own loader", r"(?:adapter\.)?body\.\d+\."),
    Kind("a diffusion transformer (Flux, SD3 or the like)", "PGP-DiffSR needs an SDXL-shaped UNet", _BLOCKS),
    Kind(
        "a diffusion transformer",
        "PGP-DiffSR needs an SDXL-shaped UNet",
        r"(?:.*\.)?blocks\.\d+\.(?:self_attn|cross_attn)|(?:.*\.)?(?:x_embedder|cap_embedder|patch_embedding)\.",
    ),
    Kind(
        "a VAE", _UNET, r"(?:first_stage_model\.|vae\.|model\.)?(?:encoder|decoder)\.(?:conv_in|conv_out|mid|down|up)\b"
    ),
    Kind("a vision encoder (CLIP)", _UNET, r"(?:.*\.)?(?:vision_model|visual)\."),
    Kind(
        "a text encoder",
        _UNET,
        r"(?:.*\.)?(?:text_model|cond_stage_model|conditioner|token_embedding)\.|encoder\.block\.|transformer\.resblocks",
    ),
    Kind("an embedding (textual inversion)", _UNET, r"string_to_|emb_params$|clip_[lg]$"),
)


#: What stands beside the UNet in a whole checkpoint.
_IN_CHECKPOINTS = ("a VAE", "a vision encoder (CLIP)", "a text encoder", "guidance")


def kind_of(names: Iterable[str]) -> Kind | None:
    """The kind of file that has these names; None for an UNet, or where nothing is known of them."""
    names = sorted(names)
    for kind in _KINDS:
        pattern = re.compile(kind.names)
        if any(pattern.match(name) for name in names):
            return kind
    return None


def described(names: Iterable[str]) -> str | None:
    """What a file holds, in words, for where neither of its kinds was wanted; a UNet and a whole checkpoint too."""
    names = list(names)
    kind = kind_of(names)
    # Some of the others have names of a UNet too.
    if find_home(names, UNET_HEADS) and (kind is None or kind.what in _IN_CHECKPOINTS):
        return "a whole checkpoint" if find_home(names, VAE_HEADS) else "a UNet"
    return kind.what if kind else None
