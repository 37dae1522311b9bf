"""LoRA files: the naming of the field, and merging against PEFT's own arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pgp_core.errors import CheckpointError
from pgp_core.unet.lora import Beside, from_peft, merge
from pgp_core.unet.plan import load_plan
from pgp_core.unet.prune import prune_module

MakeUNet = Callable[..., torch.nn.Module]
CallUNet = Callable[..., torch.Tensor]

#: Linear layers, 1x1 and 3x3 convolutions.
TARGETS = [
    "to_q",
    "to_v",
    "to_out.0",
    "proj_in",
    "ff.net.0.proj",
    "conv_in",
    "conv_out",
    "conv1",
    "conv_shortcut",
    "conv",
]
RANK, ALPHA = 4, 6.0


def adapted(unet: Any, rank: int = RANK, alpha: float = ALPHA) -> Any:
    """The UNet with a PEFT LoRA whose both halves are drawn."""
    from peft import LoraConfig

    unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS))
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in unet.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn(p.shape, generator=g) * 0.1)
    return unet.eval()


def lora_weights(unet: torch.nn.Module) -> dict[str, torch.Tensor]:
    """PEFT's LoRA weights as they stand in the state dict."""
    return {k: v.clone() for k, v in unet.state_dict().items() if ".lora_" in k}


def lora_file(make_unet: MakeUNet) -> dict[str, torch.Tensor]:
    return from_peft(lora_weights(adapted(make_unet())), ALPHA)


@pytest.fixture
def lora(make_unet: MakeUNet) -> dict[str, torch.Tensor]:
    return lora_file(make_unet)


def one_layer(lora: dict[str, torch.Tensor], part: str = "attn1_to_q") -> str:
    """The stem of one of the LoRA's layers."""
    return next(k for k in sorted(lora) if part in k).partition(".")[0]


# -- names -------------------------------------------------------------------------------------------------


def test_names_are_those_that_diffusers_itself_exports_for_others(make_unet: MakeUNet) -> None:
    from diffusers.utils import convert_state_dict_to_kohya
    from peft.utils import get_peft_model_state_dict

    unet = adapted(make_unet(), alpha=RANK)
    exported = convert_state_dict_to_kohya({f"unet.{k}": v for k, v in get_peft_model_state_dict(unet).items()})
    ours = from_peft(lora_weights(unet), RANK)
    assert ours.keys() == exported.keys()
    assert all(torch.equal(ours[k], exported[k].to(ours[k].dtype)) for k in ours)


@pytest.mark.parametrize("infix", ["", ".default", ".s1"])
def test_adapter_names_do_not_matter(infix: str) -> None:
    down, up = torch.ones(2, 3), torch.ones(5, 2)
    weights = {f"a.b.0.to_q.lora_A{infix}.weight": down, f"a.b.0.to_q.lora_B{infix}.weight": up}
    result = from_peft(weights, 8)
    assert set(result) == {f"lora_unet_a_b_0_to_q.{x}" for x in ("lora_down.weight", "lora_up.weight", "alpha")}
    assert result["lora_unet_a_b_0_to_q.lora_down.weight"] is down
    assert result["lora_unet_a_b_0_to_q.lora_up.weight"] is up
    assert result["lora_unet_a_b_0_to_q.alpha"].item() == 8


# -- merging -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.0])
def test_merged_is_what_peft_computes(strength: float, make_unet: MakeUNet, call_unet: CallUNet) -> None:
    with_adapter: Any = adapted(make_unet())
    lora = from_peft(lora_weights(with_adapter), ALPHA)
    with_adapter.set_adapters(["default"], [strength])
    unet = make_unet()
    changed = merge(unet, lora, strength)
    assert changed == sum(1 for k in lora if k.endswith(".alpha"))
    assert changed == sum(1 for m in with_adapter.modules() if hasattr(m, "lora_A"))
    expected = call_unet(with_adapter)
    torch.testing.assert_close(call_unet(unet), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(call_unet(make_unet()), expected, atol=1e-2)


def test_merged_weights_are_the_formula_s(make_unet: MakeUNet, lora: dict[str, torch.Tensor]) -> None:
    before, unet = make_unet().state_dict(), make_unet()
    merge(unet, lora, 0.5)
    after = unet.state_dict()
    for part, key in (("attn1_to_q", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"), ("", "conv_in")):
        stem = "lora_unet_" + key.replace(".", "_")
        assert part in stem
        down, up = (lora[f"{stem}.lora_{x}.weight"].double() for x in ("down", "up"))
        rows = torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1))
        expected = before[f"{key}.weight"].double() + 0.5 * ALPHA / RANK * rows.view(before[f"{key}.weight"].shape)
        torch.testing.assert_close(after[f"{key}.weight"].double(), expected, atol=1e-6, rtol=1e-6)


def test_without_alpha_the_scale_is_the_strength(make_unet: MakeUNet, lora: dict[str, torch.Tensor]) -> None:
    bare = {k: v for k, v in lora.items() if not k.endswith(".alpha")}
    as_rank = bare | {k: torch.tensor(float(RANK)) for k in lora if k.endswith(".alpha")}
    one, other = make_unet(), make_unet()
    merge(one, bare)
    merge(other, as_rank)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_layers_of_removed_blocks_are_passed_over(
    make_unet: MakeUNet, call_unet: CallUNet, lora: dict[str, torch.Tensor]
) -> None:
    plan = load_plan("pgp-nano")
    full, pruned = make_unet(), prune_module(make_unet(), plan)
    everything = merge(full, lora)
    # to_q, to_v and to_out of two attentions, and the feed-forward's first layer: seven a block.
    assert merge(pruned, lora) == everything - 7 * plan.removed
    assert torch.equal(call_unet(pruned), call_unet(prune_module(full, plan)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loras_and_unets(dtype: torch.dtype, make_unet: MakeUNet, lora: dict[str, torch.Tensor]) -> None:
    exact, half = make_unet(), make_unet().to(dtype)
    merge(exact, {k: v.to(dtype) for k, v in lora.items()})
    merge(half, {k: v.to(dtype) for k, v in lora.items()})
    for a, b in zip(half.parameters(), exact.parameters(), strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.float(), b, atol=4 * torch.finfo(dtype).eps, rtol=4 * torch.finfo(dtype).eps)


# -- beside the weights ------------------------------------------------------------------------------------


def test_beside_the_weights_is_the_same_as_merged_and_can_be_left_out(
    make_unet: MakeUNet, call_unet: CallUNet, lora: dict[str, torch.Tensor]
) -> None:
    plan = load_plan("pgp-nano")
    unet, merged, bare = (prune_module(make_unet(), plan) for _ in range(3))
    before = {k: v.clone() for k, v in unet.state_dict().items()}
    beside = Beside(unet, lora)
    assert beside.layers == merge(merged, lora)
    expected, without = call_unet(merged), call_unet(bare)
    assert (expected - without).abs().max() > 0.1
    torch.testing.assert_close(call_unet(unet), expected, atol=1e-4, rtol=1e-4)

    def predict(_x: torch.Tensor, _t: torch.Tensor) -> torch.Tensor:
        return call_unet(unet)

    assert torch.equal(beside.without(predict)(torch.zeros(1), torch.zeros(1)), without)
    torch.testing.assert_close(call_unet(unet), expected, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(v, before[k]) for k, v in unet.state_dict().items())

    def fail(_x: torch.Tensor, _t: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        beside.without(fail)(torch.zeros(1), torch.zeros(1))
    assert beside.active


def test_two_loras_beside_and_merged_are_both_merged(
    make_unet: MakeUNet, call_unet: CallUNet, lora: dict[str, torch.Tensor]
) -> None:
    other = {k: (0.5 * v.flip(0) if k.endswith("up.weight") else v) for k, v in lora.items()}
    unet, merged = make_unet(), make_unet()
    merge(unet, lora)
    Beside(unet, other)
    merge(merged, lora)
    merge(merged, other)
    torch.testing.assert_close(call_unet(unet), call_unet(merged), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_beside_a_half_precision_unet(dtype: torch.dtype, make_unet: MakeUNet, lora: dict[str, torch.Tensor]) -> None:
    unet = make_unet().to(dtype)
    Beside(unet, lora)
    layer: Any = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    x = torch.randn(1, 5, layer.weight.shape[1]).to(dtype)
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    down, up = (lora[f"{stem}.lora_{k}.weight"] for k in ("down", "up"))
    expected = x.float() @ (layer.weight.float() + ALPHA / RANK * up @ down).T
    torch.testing.assert_close(layer(x).float(), expected, atol=0.05, rtol=0.05)


def test_a_module_of_another_kind_is_merged_but_nothing_stands_beside_it(make_unet: MakeUNet) -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(32))

    stem = "lora_unet_conv_norm_out"
    odd = {f"{stem}.lora_down.weight": torch.ones(1, 1), f"{stem}.lora_up.weight": torch.ones(32, 1)}
    unet: Any = make_unet()
    unet.conv_norm_out = Odd()
    with pytest.raises(CheckpointError, match="conv_norm_out is of a module"):
        Beside(unet, odd)
    assert merge(unet, odd) == 1
    assert torch.equal(unet.conv_norm_out.weight, torch.ones(32))


# -- misfits -----------------------------------------------------------------------------------------------


def without_up(lora: dict[str, torch.Tensor]) -> None:
    del lora[f"{one_layer(lora)}.lora_up.weight"]


def narrower(lora: dict[str, torch.Tensor]) -> None:
    key = f"{one_layer(lora)}.lora_down.weight"
    lora[key] = lora[key][:, :-1]


def shorter(lora: dict[str, torch.Tensor]) -> None:
    key = f"{one_layer(lora)}.lora_up.weight"
    lora[key] = lora[key][:-1]


def turned(lora: dict[str, torch.Tensor]) -> None:
    """As many numbers, other rows: a layer whose inputs and outputs differ."""
    stem = one_layer(lora, "ff_net_0_proj")
    down, up = lora[f"{stem}.lora_down.weight"], lora[f"{stem}.lora_up.weight"]
    lora[f"{stem}.lora_down.weight"], lora[f"{stem}.lora_up.weight"] = up.t(), down.t()


def of_two_ranks(lora: dict[str, torch.Tensor]) -> None:
    key = f"{one_layer(lora)}.lora_up.weight"
    lora[key] = lora[key][:, :-1]


def of_rank_zero(lora: dict[str, torch.Tensor]) -> None:
    stem = one_layer(lora)
    lora[f"{stem}.lora_down.weight"] = lora[f"{stem}.lora_down.weight"][:0]
    lora[f"{stem}.lora_up.weight"] = lora[f"{stem}.lora_up.weight"][:, :0]


@pytest.mark.parametrize("spoil", [without_up, narrower, shorter, turned, of_two_ranks, of_rank_zero])
def test_one_misfit_leaves_the_unet_unchanged(
    spoil: Callable[[dict[str, torch.Tensor]], None], make_unet: MakeUNet, lora: dict[str, torch.Tensor]
) -> None:
    unet = make_unet()
    before = copy.deepcopy(unet.state_dict())
    spoil(lora)
    with pytest.raises(CheckpointError) as error:
        merge(unet, lora, source="mine.safetensors")
    message = str(error.value)
    assert "mine.safetensors" in message
    assert "lora_unet_" in message
    assert "\n" not in message
    assert all(torch.equal(v, before[k]) for k, v in unet.state_dict().items())
    with pytest.raises(CheckpointError):
        Beside(unet, lora)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        ["lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "lora_te1_x.lora_up.weight"],
        ["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"],
        ["lora_unet_nothing_like_it.lora_down.weight", "lora_unet_nothing_like_it.lora_up.weight"],
    ],
    ids=["empty", "text encoder", "another model", "unknown names"],
)
def test_a_file_that_changes_nothing_is_refused(keys: list[str], make_unet: MakeUNet) -> None:
    with pytest.raises(CheckpointError, match="mine changes no layer of this UNet"):
        merge(make_unet(), {k: torch.ones(2, 2) for k in keys}, source="mine")
