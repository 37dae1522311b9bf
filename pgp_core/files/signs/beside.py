"""What works beside a model: adapters, control models, embeddings, motion, and what is ours."""

from __future__ import annotations

from .names import Kind, Names, Sign

_OWN_LOADER = "for its own loader, beside a model"

# fmt: off
#: Of what no model has; asked first.
OURS = (
    (Sign("guidance", like=(r"pgp\.",)), "for Load PGP-DiffSR Guidance or --guidance"),
    (Sign("saved CONDITIONING", like=(r"\d+\.(?:context$|options\.)",)),
     "for Load PGP-DiffSR Conditioning or --conditioning"),
    (Sign("nano's learned decoder", ("decoder.convs.0.weight", "decoder.convs.1.weight")), "for nano's folder"),
    (Sign("nano's contexts", ("positive.context", "negative.context")), "for nano's folder"),
)

CONTROLS = (
    (Sign("a ControlNet-LLLite", like=(r"lllite_",)), _OWN_LOADER),
    (Sign("a ControlNet", like=(
        r"control_model\.|(?:.*\.)?controlnet_|(?:.*\.)?input_hint_block\.|(?:.*\.)?zero_convs\."
        r"|(?:.*\.)?task_embedding$",)), _OWN_LOADER),
    (Sign("an IP-Adapter", like=(r"ip_adapter|image_proj",)), _OWN_LOADER),
    (Sign("PhotoMaker or PuLID", like=(r"id_encoder\.|pulid_|pulid_encoder\.",)), _OWN_LOADER),
    (Sign("GLIGEN", like=(r"(?:.*\.)?position_net\.",)), _OWN_LOADER),
    (Sign("a motion module of AnimateDiff", like=(r".*motion_modules\.",)), ""),
)

LATER = (
    (Sign("a style model (T2I-Adapter)", ("style_embedding",)), _OWN_LOADER),
    (Sign("a style model (Flux Redux)", ("redux_up.weight",)), _OWN_LOADER),
    (Sign("a T2I-Adapter", like=(r"(?:adapter\.)?body\.\d+\.",)), _OWN_LOADER),
)

LAST = (
    (Sign("an embedding (textual inversion)", like=(r"string_to_|emb_params$|clip_[lg]$|t5xxl$|<\w[^>]*>$",)),
     "for a prompt: ComfyUI's embeddings folder"),
    (Sign("a hypernetwork", like=(r"(?:320|640|768|1024|1280)\.[01]\.",)), "for ComfyUI's Load Hypernetwork"),
    (Sign("a saved latent", ("latent_tensor",)), "for ComfyUI's Load Latent"),
    (Sign("the state of a training run", like=(r"(?:optimizer|optimizer_states|exp_avg)\b",)), ""),
)
# fmt: on


def kind(names: Names, signs: tuple[tuple[Sign, str], ...]) -> Kind | None:
    """The first of a table's kinds that a file shows."""
    return next((Kind(sign.what, goes) for sign, goes in signs if sign.holds(names)), None)
