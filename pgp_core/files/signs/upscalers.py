"""Convolutional and transformer upscalers, which ComfyUI loads with its own node."""

from __future__ import annotations

from .names import CHOOSE, Kind, Names, Sign, first

_GOES = "for ComfyUI's Load Upscale Model"
_SWIN = "layers.0.residual_group.blocks.0.norm1.weight"

# fmt: off
#: The first that fits is the answer.
SIGNS = (
    Sign("HAT", ("conv_first.weight", "layers.0.residual_group.overlap_attn.relative_position_bias_table")),
    Sign("ATD", ("conv_first.weight", "layers.0.residual_group.td")),
    Sign("Swin2SR", ("conv_first.weight", _SWIN, "layers.0.residual_group.blocks.0.attn.logit_scale")),
    Sign("SwinIR", (_SWIN,), like=(r"conv_first\.(?:1\.)?weight$",)),
    Sign("RGT", ("conv_first.weight", "before_RG.1.weight", "layers.0.blocks.0.gamma")),
    Sign("DAT", ("conv_first.weight", "before_RG.1.weight", "layers.0.blocks.0.attn.qkv.weight")),
    Sign("DRCT", ("conv_first.weight", "layers.0.swin1.norm1.weight")),
    Sign("GRL", ("conv_first.weight", "layers.0.blocks.0.attn.window_attn.attn_transform.logit_scale")),
    Sign("SPAN", ("conv_1.sk.weight", "block_1.c1_r.sk.weight")),
    Sign("PLKSR", ("feats.0.weight",), like=(r"feats\.1\.(?:lk|refine|channe_mixer|channel_mixer)\.",)),
    Sign("MoSR", ("gblocks.0.weight", "gblocks.1.norm.weight")),
    Sign("SAFMN", ("to_feat.weight", "feats.0.safm.aggr.weight")),
    Sign("OmniSR", ("residual_layer.0.residual_layer.0.layer.0.fn.0.weight",)),
    Sign("RCAN", ("tail.1.weight", "body.0.body.0.body.0.weight")),
    Sign("Real-CUGAN", ("unet1.conv1.conv.0.weight", "unet2.conv_bottom.weight")),
    Sign("ESRGAN", like=(r"model\.1\.sub\.\d+\.RDB1\.",)),
    Sign("ESRGAN", ("conv_first.weight",), like=(r"RRDB_trunk\.0\.|body\.0\.rdb1\.",)),
    Sign("SCUNet", ("m_head.0.weight", "m_tail.0.weight")),
    Sign("", ("conv_first.weight",)),
    Sign("Compact", ("body.0.weight", "body.1.weight"), ranks=(("body.0.weight", 4), ("body.1.weight", 1))),
    Sign("", like=(r"model\.0\.weight$|body\.0\.weight$|conv_up1\.|layers\.0\.residual_group\.",)),
)

_FACES = (
    Sign("GFPGAN", ("toRGB.0.weight", "stylegan_decoder.style_mlp.1.weight")),
    Sign("GFPGAN", like=(r"stylegan_decoderdot",)),
    Sign("CodeFormer", ("idx_pred_layer.1.weight",)),
    Sign("RestoreFormer", ("quantize.embedding.weight", "encoder.conv_in.weight", "quant_conv.weight")),
)
# fmt: on


def kind(names: Names) -> Kind | None:
    """An upscaler, or a restorer of faces."""
    if found := first(_FACES, names):
        return Kind(f"a restorer of faces ({found})", "for nodes that restore faces", CHOOSE)
    found = first(SIGNS, names)
    if found is None:
        return None
    return Kind(f"an upscaler ({found})" if found else "an upscaler", _GOES)
