"""Stack names and the key map, against diffusers' own LDM converter and hand-written pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgp_core.errors import CheckpointError
from pgp_core.unet.known import NANO, SDXL
from pgp_core.unet.topology import KeyMap, scheme_of, split_block, stacks_of

#: unet/config.json of SDXL base 1.0 as published.
SDXL_CONFIG = {
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 2048,
    "cross_attention_norm": None,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "resnet_time_scale_shift": "default",
    "sample_size": 128,
    "time_embedding_type": "positional",
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}

SDXL_DEPTHS = {
    "down_blocks.1.attentions.0": 2,
    "down_blocks.1.attentions.1": 2,
    "down_blocks.2.attentions.0": 10,
    "down_blocks.2.attentions.1": 10,
    "mid_block.attentions.0": 10,
    "up_blocks.0.attentions.0": 10,
    "up_blocks.0.attentions.1": 10,
    "up_blocks.0.attentions.2": 10,
    "up_blocks.1.attentions.0": 2,
    "up_blocks.1.attentions.1": 2,
    "up_blocks.1.attentions.2": 2,
}

PAIRS = [
    ("conv_in.weight", "input_blocks.0.0.weight"),
    ("time_embedding.linear_1.weight", "time_embed.0.weight"),
    ("time_embedding.linear_2.bias", "time_embed.2.bias"),
    ("add_embedding.linear_1.weight", "label_emb.0.0.weight"),
    ("add_embedding.linear_2.bias", "label_emb.0.2.bias"),
    ("down_blocks.0.resnets.0.norm1.weight", "input_blocks.1.0.in_layers.0.weight"),
    ("down_blocks.0.resnets.1.conv1.weight", "input_blocks.2.0.in_layers.2.weight"),
    ("down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"),
    ("down_blocks.1.resnets.0.conv_shortcut.weight", "input_blocks.4.0.skip_connection.weight"),
    ("down_blocks.1.resnets.0.time_emb_proj.bias", "input_blocks.4.0.emb_layers.1.bias"),
    (
        "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q.weight",
        "input_blocks.4.1.transformer_blocks.1.attn1.to_q.weight",
    ),
    ("down_blocks.1.attentions.1.proj_in.weight", "input_blocks.5.1.proj_in.weight"),
    ("down_blocks.1.downsamplers.0.conv.bias", "input_blocks.6.0.op.bias"),
    (
        "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj.bias",
        "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj.bias",
    ),
    ("mid_block.resnets.0.conv2.weight", "middle_block.0.out_layers.3.weight"),
    (
        "mid_block.attentions.0.transformer_blocks.7.attn2.to_out.0.weight",
        "middle_block.1.transformer_blocks.7.attn2.to_out.0.weight",
    ),
    ("mid_block.resnets.1.norm2.bias", "middle_block.2.out_layers.0.bias"),
    ("up_blocks.0.resnets.0.conv_shortcut.bias", "output_blocks.0.0.skip_connection.bias"),
    (
        "up_blocks.0.attentions.2.transformer_blocks.0.norm3.weight",
        "output_blocks.2.1.transformer_blocks.0.norm3.weight",
    ),
    ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.2.conv.weight"),
    ("up_blocks.1.attentions.0.proj_out.weight", "output_blocks.3.1.proj_out.weight"),
    ("up_blocks.1.upsamplers.0.conv.bias", "output_blocks.5.2.conv.bias"),
    ("up_blocks.2.resnets.2.conv1.weight", "output_blocks.8.0.in_layers.2.weight"),
    ("conv_norm_out.weight", "out.0.weight"),
    ("conv_out.bias", "out.2.bias"),
]


def small_unet(layers: int = 2, **changes: Any) -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    config = SDXL_CONFIG | {"layers_per_block": layers} | changes
    with torch.device("meta"):
        return UNet2DConditionModel(**config)


@pytest.fixture(scope="module")
def sdxl_keys() -> list[str]:
    return list(small_unet().state_dict())


def converted_by_diffusers(ldm_to_diffusers: dict[str, str], layers: int = 2) -> dict[str, str]:
    """What diffusers' single-file loader makes of an LDM state dict; the values are the expected names."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    checkpoint = {f"model.diffusion_model.{k}": v for k, v in ldm_to_diffusers.items()}
    return convert_ldm_unet_checkpoint(checkpoint, SDXL_CONFIG | {"layers_per_block": layers})


# -- the key map -------------------------------------------------------------------------------------------


def test_sdxl_has_1680_keys_and_ours_are_the_same(sdxl_keys: list[str]) -> None:
    from pgp_core.unet.known import SDXL_SHAPE
    from pgp_core.unet.on_diffusers import build_unet

    with torch.device("meta"):
        ours = build_unet(SDXL_SHAPE).state_dict()
    theirs = small_unet().state_dict()
    assert len(sdxl_keys) == 1680
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_every_key_goes_to_ldm_and_back(sdxl_keys: list[str]) -> None:
    names = KeyMap.of(sdxl_keys)
    ldm = [names.to_ldm(k) for k in sdxl_keys]
    assert len(set(ldm)) == 1680
    assert [names.to_diffusers(k) for k in ldm] == sdxl_keys
    assert KeyMap.of(ldm) == names
    assert (scheme_of(sdxl_keys), scheme_of(ldm)) == ("diffusers", "ldm")


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_diffusers_own_converter_agrees_about_every_key(layers: int) -> None:
    keys = list(small_unet(layers).state_dict())
    names = KeyMap.of(keys)
    assert names.resnets == layers
    converted = converted_by_diffusers({names.to_ldm(k): k for k in keys}, layers)
    assert converted == {k: k for k in keys}


@pytest.mark.parametrize(("diffusers", "ldm"), PAIRS)
def test_known_pairs(diffusers: str, ldm: str) -> None:
    names = KeyMap()
    assert names.to_ldm(diffusers) == ldm
    assert names.to_diffusers(ldm) == diffusers
    # The module of a parameter maps like the parameter.
    assert names.to_ldm(diffusers.rpartition(".")[0]) == ldm.rpartition(".")[0]


def test_an_upsampler_without_attention_before_it() -> None:
    """LDM numbers the parts of a block: without attention the upsampler is part 1."""
    assert KeyMap().to_diffusers("output_blocks.2.1.conv.weight") == "up_blocks.0.upsamplers.0.conv.weight"


@pytest.mark.parametrize(
    "name",
    ["", "conv_in_2.weight", "encoder.conv_in.weight", "down_blocks.0", "blocks.0.attn.qkv.weight", "input_blocks.1.0"],
)
def test_foreign_names_are_refused_by_to_ldm(name: str) -> None:
    with pytest.raises(CheckpointError, match="no name of an SDXL-shaped UNet in diffusers' scheme"):
        KeyMap().to_ldm(name)


@pytest.mark.parametrize(
    "name",
    [
        "down_blocks.0.resnets.2.conv1.weight",
        "down_blocks.1.attentions.2.proj_in.weight",
        "down_blocks.0.downsamplers.1.conv.weight",
        "up_blocks.0.resnets.3.conv1.weight",
        "up_blocks.0.upsamplers.1.conv.weight",
    ],
)
def test_a_number_beyond_the_level_is_refused_and_lands_on_no_other_key(name: str) -> None:
    with pytest.raises(CheckpointError):
        KeyMap(2).to_ldm(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "output_blocks",
        "down_blocks.0.resnets.0.conv1.weight",
        "input_blocks.4.2.conv.weight",
        "input_blocks.0.1.proj_in.weight",
        "middle_block.3.weight",
        "double_blocks.0.img_attn.qkv.weight",
    ],
)
def test_foreign_names_are_refused_by_to_diffusers(name: str) -> None:
    with pytest.raises(CheckpointError, match="no name of an SDXL-shaped UNet in the LDM scheme"):
        KeyMap().to_diffusers(name)


ldm_names = st.builds(
    "{}_blocks.{}.{}{}".format,
    st.sampled_from(["input", "output"]),
    st.integers(0, 12),
    st.integers(0, 3),
    st.sampled_from(
        ["", ".in_layers.0.weight", ".op.weight", ".conv.weight", ".proj_in.bias", ".skip_connection.bias"]
    ),
)


@given(ldm_names, st.integers(1, 3))
def test_to_diffusers_refuses_or_can_be_undone(name: str, resnets: int) -> None:
    names = KeyMap(resnets)
    try:
        there = names.to_diffusers(name)
    except CheckpointError:
        return
    back = names.to_ldm(there)
    # An upsampler without attention before it is the one name with two spellings.
    assert back == name or "upsamplers" in there


# -- stacks ------------------------------------------------------------------------------------------------


def test_stacks_of_sdxl_in_both_schemes(sdxl_keys: list[str]) -> None:
    expected = {k: tuple(range(d)) for k, d in SDXL_DEPTHS.items()}
    names = KeyMap.of(sdxl_keys)
    for keys in (sdxl_keys, [names.to_ldm(k) for k in sdxl_keys], reversed(sdxl_keys)):
        stacks = stacks_of(keys)
        assert stacks == expected
        assert list(stacks) == list(SDXL_DEPTHS), "in running order"


@pytest.mark.parametrize("scheme", ["diffusers", "ldm"])
def test_gaps_and_empty_stacks(sdxl_keys: list[str], scheme: str) -> None:
    gone = {"down_blocks.2.attentions.0": {0, 3, 9}, "mid_block.attentions.0": set(range(10))}
    keys = [
        k
        for k in sdxl_keys
        if not any(k.startswith(f"{s}.transformer_blocks.{n}.") for s, numbers in gone.items() for n in numbers)
    ]
    names = KeyMap.of(keys)
    stacks = stacks_of(keys if scheme == "diffusers" else [names.to_ldm(k) for k in keys])
    assert stacks["down_blocks.2.attentions.0"] == (1, 2, 4, 5, 6, 7, 8)
    assert stacks["mid_block.attentions.0"] == ()
    assert stacks["up_blocks.0.attentions.1"] == tuple(range(10))
    assert list(stacks) == list(SDXL_DEPTHS)


def test_block_numbers_sort_as_numbers() -> None:
    keys = [f"mid_block.attentions.0.transformer_blocks.{n}.norm1.weight" for n in (10, 9, 2, 11)]
    assert stacks_of([*keys, "down_blocks.0.resnets.0.conv1.weight"]) == {"mid_block.attentions.0": (2, 9, 10, 11)}


def test_the_known_families() -> None:
    assert SDXL.depths == SDXL_DEPTHS
    assert list(NANO.depths) == list(SDXL_DEPTHS), "nano has SDXL's stack names"
    stages = [SDXL.stage(s) for s in SDXL_DEPTHS]
    assert stages == ["encoder"] * 4 + ["bottleneck"] + ["decoder"] * 6


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("mid_block.attentions.0.transformer_blocks.3.norm1.bias", ("mid_block.attentions.0", 3)),
        ("input_blocks.4.1.transformer_blocks.12.attn1.to_q.weight", ("input_blocks.4.1", 12)),
        ("mid_block.attentions.0.proj_in.weight", None),
        ("conv_in.weight", None),
    ],
)
def test_split_block(key: str, expected: tuple[str, int] | None) -> None:
    assert split_block(key) == expected


# -- other architectures -----------------------------------------------------------------------------------

OTHERS = {
    "Flux": ["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight", "img_in.weight"],
    "SD3": ["joint_blocks.0.x_block.attn.qkv.weight", "x_embedder.proj.weight"],
    "PixArt, Flux in diffusers": ["transformer_blocks.0.attn1.to_q.weight", "pos_embed.proj.weight"],
    "Wan": ["blocks.0.self_attn.q.weight", "patch_embedding.weight"],
    "VAE in LDM": ["encoder.down.0.block.0.conv1.weight", "decoder.conv_out.bias"],
    "VAE in diffusers": ["encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.up_blocks.0.resnets.0.norm1.bias"],
    "CLIP": ["text_model.encoder.layers.0.self_attn.q_proj.weight"],
    "LoRA": ["lora_unet_conv_in.lora_up.weight"],
    "nothing": [],
}


@pytest.mark.parametrize("keys", OTHERS.values(), ids=OTHERS.keys())
def test_other_architectures_are_refused_in_one_line(keys: list[str]) -> None:
    for reader in (scheme_of, KeyMap.of, stacks_of):
        with pytest.raises(CheckpointError) as error:
            reader(keys)
        assert "\n" not in str(error.value)


def test_a_diffusion_transformer_is_called_one() -> None:
    for name in ("Flux", "SD3", "PixArt, Flux in diffusers"):
        with pytest.raises(CheckpointError, match="diffusion transformer"):
            scheme_of(OTHERS[name])


@pytest.mark.parametrize(
    "keys",
    [
        ["down_blocks.1.attentions.0.proj_in.weight"],
        ["input_blocks.0.0.weight", "input_blocks.1.0.in_layers.0.weight"],
    ],
)
def test_a_unet_of_another_shape_is_refused(keys: list[str]) -> None:
    with pytest.raises(CheckpointError, match="not SDXL-shaped"):
        KeyMap.of(keys)


@pytest.mark.parametrize("foreign", ["refiner.transformer_blocks.0.norm1.weight", "extra.0.proj_in.weight"])
@pytest.mark.parametrize("ldm", [False, True])
def test_a_stack_in_a_strange_place_is_refused(foreign: str, ldm: bool, sdxl_keys: list[str]) -> None:
    keys = [KeyMap().to_ldm(k) for k in sdxl_keys] if ldm else sdxl_keys
    with pytest.raises(CheckpointError):
        stacks_of([*keys, foreign])


# -- sites ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "block"),
    [
        ("conv_in", 0),
        ("down_blocks.0.resnets.0", 1),
        ("down_blocks.0.resnets.1", 2),
        ("down_blocks.0.downsamplers.0", 3),
        ("down_blocks.1.attentions.0", 4),
        ("down_blocks.1.downsamplers.0", 6),
        ("down_blocks.2.attentions.1", 8),
    ],
)
def test_block_of_site(site: str, block: int) -> None:
    assert KeyMap().block_of_site(site) == ("input", block)


@pytest.mark.parametrize("site", ["mid_block.attentions.0", "up_blocks.0.upsamplers.0", "conv_out", "nowhere"])
def test_a_site_outside_the_encoder_is_refused(site: str) -> None:
    with pytest.raises(CheckpointError):
        KeyMap().block_of_site(site)
