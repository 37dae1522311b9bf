"""What a file is, by the names and shapes of its tensors: for messages, and for ``pgp-diffsr models``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .prefixes import find_home
from .signs import beside, encoders, loras, restorers, transformers, unets, upscalers
from .signs.names import Kind, Names

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

Tensors = Mapping[str, tuple[int, ...]] | Iterable[str]

#: What stands beside the UNet in a whole checkpoint.
_IN_CHECKPOINTS = ("a VAE", "a vision encoder", "a text encoder", "guidance")


def kind_of(tensors: Tensors) -> Kind | None:
    """The kind of file that has these tensors; None for an UNet, or where nothing is known of them.

    Args:
        tensors: names and shapes, or names alone: then less can be said.
    """
    tensors = tensors if isinstance(tensors, Mapping) else list(tensors)
    names = Names(tensors)
    return (
        # Adapters of restorers are LoRAs too, and some LoRAs have names of what they are for.
        restorers.kind(names)
        or loras.kind(names, tensors)
        or beside.kind(names, beside.OURS)
        or beside.kind(names, beside.CONTROLS)
        or transformers.kind(names)
        or upscalers.kind(names)
        or beside.kind(names, beside.LATER)
        or transformers.some_kind(names)
        or encoders.kind(names)
        or beside.kind(names, beside.LAST)
    )


def unet_kind(bare: Mapping[str, tuple[int, ...]]) -> Kind | None:
    """A UNet that is not of SDXL's kind; None for one that may be.

    Args:
        bare: its names without prefix, and shapes.
    """
    return unets.kind(bare)


def described(tensors: Tensors) -> str | None:
    """What a file holds, in words, for where neither of its kinds was wanted; a UNet and a whole checkpoint too."""
    tensors = tensors if isinstance(tensors, Mapping) else list(tensors)
    kind = kind_of(tensors)
    home = find_home(tensors, UNET_HEADS)
    # Some of the others have names of a UNet too.
    if home and (kind is None or kind.what.startswith(_IN_CHECKPOINTS)):
        whole = "whole checkpoint" if find_home(tensors, VAE_HEADS) else "UNet"
        if not isinstance(tensors, Mapping):
            return f"a {whole}"
        bare = {k.removeprefix(home.prefix): v for k, v in tensors.items() if home.holds(k)}
        return f"a {whole} of {unets.name_of(bare)}"
    return kind.what if kind else None
