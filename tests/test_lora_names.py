"""LoRA files by every tool's names are the same layers; what is not applied is said or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pgp_core.errors import CheckpointError
from pgp_core.unet.known import SDXL_SHAPE
from pgp_core.unet.lora import diffusers_names, from_config, merge, read
from pgp_core.unet.lora.files import load
from pgp_core.unet.lora.modules import all_modules, by_flat_name
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import load_plan
from pgp_core.unet.prune import prune_module
from pgp_core.unet.topology import KeyMap

Weights = dict[str, torch.Tensor]

MODULES = (
    "conv_in",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.7.attn2.to_out.0",
    "up_blocks.0.attentions.2.transformer_blocks.9.ff.net.0.proj",
    "up_blocks.1.resnets.0.conv_shortcut",
    "add_embedding.linear_1",
)
RANK = 2


def layers() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    return {m: (torch.randn(RANK, 4, generator=g), torch.randn(6, RANK, generator=g)) for m in MODULES}


def flat(name: str) -> str:
    return name.replace(".", "_")


def _processor(module: str) -> str:
    """An attention's layer in diffusers before PEFT: ``attn1.processor.to_out_lora``."""
    attention, _, layer = module.partition(".to_")
    return f"{attention}.processor.to_{layer.removesuffix('.0')}_lora" if layer else f"{module}.lora"


#: Spellings of a layer's down and up matrix, by who writes them.
SPELLINGS: dict[str, Callable[[str], tuple[str, str]]] = {
    "kohya": lambda m: (f"lora_unet_{flat(m)}.lora_down.weight", f"lora_unet_{flat(m)}.lora_up.weight"),
    "kohya, LDM": lambda m: (
        f"lora_unet_{flat(KeyMap().to_ldm(m))}.lora_down.weight",
        f"lora_unet_{flat(KeyMap().to_ldm(m))}.lora_up.weight",
    ),
    "LyCORIS": lambda m: (f"lycoris_{flat(m)}.lora_down.weight", f"lycoris_{flat(m)}.lora_up.weight"),
    "ComfyUI": lambda m: (
        f"diffusion_model.{KeyMap().to_ldm(m)}.lora_A.weight",
        f"diffusion_model.{KeyMap().to_ldm(m)}.lora_B.weight",
    ),
    "ComfyUI, of a checkpoint": lambda m: (
        f"model.diffusion_model.{KeyMap().to_ldm(m)}.lora_down.weight",
        f"model.diffusion_model.{KeyMap().to_ldm(m)}.lora_up.weight",
    ),
    "diffusers": lambda m: (f"unet.{m}.lora_A.weight", f"unet.{m}.lora_B.weight"),
    "diffusers, named": lambda m: (f"unet.{m}.lora_A.default_0.weight", f"unet.{m}.lora_B.default_0.weight"),
    "diffusers 0.2x": lambda m: (f"unet.{m}.lora.down.weight", f"unet.{m}.lora.up.weight"),
    "diffusers, linear layers": lambda m: (
        f"unet.{m}.lora_linear_layer.down.weight",
        f"unet.{m}.lora_linear_layer.up.weight",
    ),
    "diffusers, processors": lambda m: (f"{_processor(m)}.down.weight", f"{_processor(m)}.up.weight"),
    "diffusers, processors of a pipeline": lambda m: (
        f"unet.{_processor(m)}.down.weight",
        f"unet.{_processor(m)}.up.weight",
    ),
    "PEFT": lambda m: (f"base_model.model.{m}.lora_A.weight", f"base_model.model.{m}.lora_B.weight"),
    "PEFT, in training": lambda m: (
        f"base_model.model.{m}.lora_A.default.weight",
        f"base_model.model.{m}.lora_B.default.weight",
    ),
    "a reference script": lambda m: (
        f"unet.base_model.model.{m}.lora_A.weight",
        f"unet.base_model.model.{m}.lora_B.weight",
    ),
    "wrapped": lambda m: (f"module.unet.{m}.lora_A.weight", f"module.unet.{m}.lora_B.weight"),
    "compiled": lambda m: (f"unet._orig_mod.{m}.lora_A.weight", f"unet._orig_mod.{m}.lora_B.weight"),
    "bare": lambda m: (f"{m}.lora_A", f"{m}.lora_B"),
}


def file_of(spelling: str) -> Weights:
    names = {m: SPELLINGS[spelling](m) for m in MODULES}
    return {name: half for m, halves in layers().items() for name, half in zip(names[m], halves, strict=True)}


def test_the_modules_known_are_those_of_the_unet() -> None:
    with torch.device("meta"):
        unet = build_unet(SDXL_SHAPE)
    there = {n for n, m in unet.named_modules() if getattr(m, "weight", None) is not None}
    known = set(all_modules())
    assert there <= known
    # Where a residual block keeps its width it has no shortcut.
    assert {n.rpartition(".")[2] for n in known - there} == {"conv_shortcut"}
    assert len({flat(n) for n in known}) == len(known)
    assert {flat(KeyMap().to_ldm(n)) for n in known} <= by_flat_name().keys()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same_layers(spelling: str) -> None:
    found = read(file_of(spelling))
    assert not found.foreign and not found.text
    assert found.layers.keys() == set(MODULES)
    for module, (down, up) in layers().items():
        kind: Any = found.layers[module].kind
        torch.testing.assert_close(kind.delta(torch.device("cpu")), up @ down)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_become_ours(spelling: str) -> None:
    assert {k: v.tolist() for k, v in diffusers_names(file_of(spelling)).items()} == {
        k: v.tolist() for k, v in file_of("kohya").items()
    }


@pytest.mark.parametrize("alpha", [torch.tensor(6), torch.tensor(6.0), torch.tensor([6.0]), torch.tensor([[6]])])
def test_alphas_of_every_shape_and_type(alpha: torch.Tensor) -> None:
    module = MODULES[1]
    for name in (f"lora_unet_{flat(module)}.alpha", f"unet.{module}.alpha", f"unet.{module}.lora.alpha"):
        found = read({**file_of("kohya"), name: alpha}).layers
        assert found[module].scale == 6 / RANK
        assert found[MODULES[0]].scale == 1


# -- what is not applied -------------------------------------------------------------------------------------


def test_what_is_left_out_is_counted_in_a_line_for_each_reason(make_unet: Any) -> None:
    """Nano's depths are 4: LoRAs for SDXL's ten blocks, for text encoders, for modules that are nowhere."""
    unet = prune_module(make_unet(), load_plan("pgp-nano"))
    kept = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    file: Weights = {}

    def add(stem: str, down: int = 32, up: int = 32) -> None:
        file[f"{stem}.lora_down.weight"], file[f"{stem}.lora_up.weight"] = torch.ones(2, down), torch.ones(up, 2)

    add(f"lora_unet_{flat(kept)}")
    for number in (4, 5, 9):
        add(f"lora_unet_mid_block_attentions_0_transformer_blocks_{number}_attn1_to_q")
    add("lora_unet_conv_in", 36)
    file["lora_unet_conv_in.alpha"] = torch.tensor(0.0)
    add("lora_te1_text_model_encoder_layers_0_mlp_fc1", 5, 5)
    add("lora_te2_text_model_encoder_layers_3_self_attn_k_proj", 5, 5)
    file["text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"] = torch.ones(1, 1)
    add("lora_unet_mid_block_attentions_0_transformer_blocks_10_attn1_to_q")
    add("lora_unet_new_fangled_thing")
    file["bundle_emb.someone.string_to_param.clip_l"] = torch.ones(1, 768)
    said: list[str] = []
    assert merge(unet, file, source="mine", say=said.append) == 2
    assert said == [
        "mine: 3 of its 10 layers are for transformer blocks that this UNet does not have, and are left out",
        "mine: 2 of its 10 layers are for modules that this UNet does not have "
        "(lora_unet_mid_block_attentions_0_transformer_blocks_10_attn1_to_q, lora_unet_new_fangled_thing (2 in all)), "
        "and are left out",
        "mine: 3 of its 10 layers are for text encoders, and are left out: prompts are encoded apart",
        "mine: 1 of its 10 layers are of strength 0 (alpha is 0) and change nothing",
        "mine: its textual inversions (1 tensors) are left out",
    ]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lora_unet_conv_in.oft_blocks", "OFT or BOFT"),
        ("base_model.model.conv_in.oft_R.weight", "OFT or BOFT"),
        ("unet.conv_in.boft_R", "OFT or BOFT"),
        ("lora_unet_conv_in.a1.weight", "GLoRA"),
        ("lora_unet_conv_in.on_input", "IA3"),
        ("base_model.model.conv_in.ia3_l", "IA3"),
        ("base_model.model.conv_in.vera_lambda_b", "VeRA"),
        ("diffusion_model.input_blocks.0.0.reshape_weight", "enlarges"),
        ("lora_unet_conv_in.bias_indices", "sparse"),
        ("unet.conv_in.lora_C.weight", "no LoRA for an SDXL UNet"),
        ("base_model.model.conv_out.weight", "no LoRA for an SDXL UNet"),
        ("something", "no LoRA for an SDXL UNet"),
    ],
)
def test_what_is_not_understood_is_refused_beside_what_is(key: str, words: str) -> None:
    for file in ({**file_of("kohya"), key: torch.ones(2, 2)}, {key: torch.ones(2, 2)}):
        with pytest.raises(CheckpointError, match=words) as error:
            read(file, "mine")
        assert key in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 320)}, "Stable Diffusion 1.5"),
        ({"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 768)}, "1.5"),
        ({"unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight": (4, 1024)}, "Diffusion 2"),
        ({"lora_unet_input_blocks_10_0_in_layers_2.lora_down.weight": (4, 9)}, "refiner"),
        ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072)}, "Flux"),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)}, "Flux"),
        ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": (4, 1536)}, "diffusion transformer"),
        ({"lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight": (4, 9)}, "Stable Diffusion 3"),
        ({"diffusion_model.blocks.0.cross_attn.k.lora_A.weight": (4, 5120)}, "diffusion transformer"),
        ({"lora_prior_unet_down_blocks_0_1.lora_down.weight": (4, 9)}, "Cascade"),
        ({"down_blocks.0.motion_modules.0.temporal_transformer.proj_in.lora_A.weight": (4, 320)}, "AnimateDiff"),
        ({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": (4, 9)}, "language model"),
    ],
)
def test_a_lora_for_another_model_is_called_by_its_name(keys: dict[str, tuple[int, int]], words: str) -> None:
    file = {k: torch.ones(v) for k, v in keys.items()}
    with pytest.raises(CheckpointError, match=re.escape(words)) as error:
        read({**file_of("kohya"), **file}, "mine")
    assert "mine changes no layer of this UNet: it is for" in str(error.value)


def test_two_loras_in_one_file_are_refused() -> None:
    with pytest.raises(CheckpointError, match="twice"):
        read({**file_of("kohya"), **file_of("diffusers")}, "mine")


# -- alphas that stand beside the weights --------------------------------------------------------------------


def scales(path: Path) -> dict[str, float]:
    return {m: layer.scale for m, layer in load(path)[0].layers.items()}


def test_diffusers_metadata_gives_the_alphas(tmp_path: Path) -> None:
    """As its own ``save_lora_weights`` writes it."""
    from diffusers import StableDiffusionXLPipeline

    metadata = {"r": RANK, "lora_alpha": 5, "alpha_pattern": {"mid_block.attentions.0": 9, "conv_in": 3}}
    weights = {k.removeprefix("unet."): v for k, v in file_of("diffusers").items()}
    StableDiffusionXLPipeline.save_lora_weights(tmp_path, unet_lora_layers=weights, unet_lora_adapter_metadata=metadata)
    expected = dict.fromkeys(MODULES, 5 / RANK) | {"conv_in": 3 / RANK}
    # The folder as it is, and the file.
    assert scales(tmp_path) == scales(tmp_path / "pytorch_lora_weights.safetensors") == expected


def test_a_key_s_own_alpha_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    file = {**file_of("kohya"), "lora_unet_conv_in.alpha": torch.tensor(1)}
    save_file(file, path, {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8, "unet.use_rslora": True})})
    assert scales(path) == dict.fromkeys(MODULES, 8 / RANK**0.5) | {"conv_in": 1 / RANK}


def test_peft_s_configuration_beside_the_file_gives_the_alphas(tmp_path: Path) -> None:
    save_file(file_of("PEFT"), tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8}
    # With the mark that some editors put before UTF-8.
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8-sig")
    assert scales(tmp_path) == scales(tmp_path / "adapter_model.safetensors") == dict.fromkeys(MODULES, 8 / RANK)


def test_a_pickle_of_old_diffusers_is_read(tmp_path: Path) -> None:
    torch.save(file_of("diffusers, processors"), tmp_path / "pytorch_lora_weights.bin")
    assert scales(tmp_path) == dict.fromkeys(MODULES, 1.0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"lora_alpha": "much"}', "damaged"),
        ('{"lora_alpha": Infinity}', "damaged"),
        ('{"alpha_pattern": [1]}', "damaged"),
        ('{"peft_type": "VERA"}', "is VERA"),
        ('{"init_lora_weights": "pissa_niter_16", "lora_alpha": 1}', "pissa"),
        ('{"lora_alpha": 1, "alpha_pattern": {"(a+)+$": 2}}', "patterns"),
    ],
)
def test_configurations_that_cannot_be_honoured(config: str, words: str, tmp_path: Path) -> None:
    save_file(file_of("PEFT"), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(CheckpointError, match=words) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)
    save_file(file_of("PEFT"), tmp_path / "b.safetensors", {"lora_adapter_metadata": config})
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path / "b.safetensors")


def test_a_configuration_without_alpha_is_peft_s_default_of_our_own() -> None:
    assert from_config({}, "mine").scale("conv_in", 4) == 1
