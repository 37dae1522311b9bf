"""Every kind of LoRA layer, against PEFT's own modules and the published formulas in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lora_layers import (
    CASES,
    CONV,
    LINEAR,
    MODULES,
    NORM,
    RANK,
    WIDE,
    Weights,
    drawn,
    file_of,
    inputs,
    loha,
    lokr_whole,
    plain,
    sketch,
    stem,
)

from pgp_core.errors import CheckpointError
from pgp_core.unet.lora import Beside, from_config, merge, read


def close(found: torch.Tensor, expected: torch.Tensor, terms: int = 100) -> None:
    """Float32 against the formula in float64: a rounding for each of the products that are summed."""
    tolerance = terms * torch.finfo(torch.float32).eps * float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected.double(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.0])
@pytest.mark.parametrize("name", CASES)
def test_merged_is_the_formula_and_a_strength_goes_that_part_of_the_way(name: str, strength: float) -> None:
    module, case = CASES[name]
    unet = sketch()
    layer = unet.get_submodule(module)
    before = layer.weight.clone()
    parts, whole = case(before)
    assert merge(unet, file_of(module, parts), strength) == 1
    close(layer.weight, before.double() + strength * (whole - before.double()))
    assert (layer.weight - before).abs().max() > 0.1
    others = {k: v for k, v in sketch().state_dict().items() if not k.startswith(f"{module}.")}
    assert all(torch.equal(v, unet.state_dict()[k]) for k, v in others.items())


@pytest.mark.parametrize("name", CASES)
def test_beside_the_weights_is_the_same(name: str) -> None:
    module, case = CASES[name]
    unet, merged = sketch(), sketch()
    before = unet.get_submodule(module)
    parts, _ = case(before.weight)
    if getattr(before, "bias", None) is not None:
        parts = {"diff_b": drawn(5, 16), **parts} if "b_norm" not in parts else parts
    bare, x = before(inputs(module)), inputs(module)
    merge(merged, file_of(module, parts))
    beside = Beside(unet, file_of(module, parts))
    assert beside.layers == 1
    expected = merged.get_submodule(module)(x)
    assert (expected - bare).abs().max() > 0.1
    # Sums of 216 products at most, of weights whose rounding was the formula's.
    close(before(x), expected, 400)
    beside.active = False
    assert torch.equal(before(x), bare)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["plain, 3x3", "LoHa, linear", "DoRA by rows", "group norm"])
def test_half_precision_is_rounded_once(name: str, dtype: torch.dtype) -> None:
    module, case = CASES[name]
    unet = sketch().to(dtype)
    layer = unet.get_submodule(module)
    parts, whole = case(layer.weight.float())
    merge(unet, file_of(module, parts))
    assert layer.weight.dtype == dtype
    tolerance = torch.finfo(dtype).eps
    torch.testing.assert_close(layer.weight.double(), whole, atol=tolerance * 0.01, rtol=tolerance)


def test_biases_are_changed_too() -> None:
    unet, plain_unet = sketch(), sketch()
    file = {
        f"{stem(CONV)}.diff_b": drawn(1, 16),
        f"{stem(NORM)}.w_norm": torch.zeros(16),
        f"{stem(NORM)}.b_norm": drawn(2, 16),
    }
    assert merge(unet, file, 0.5) == 2
    for module, seed in ((CONV, 1), (NORM, 2)):
        close(unet.get_submodule(module).bias, plain_unet.get_submodule(module).bias + 0.5 * drawn(seed, 16), 2)


def test_a_linear_layer_s_lora_may_be_shaped_as_a_convolution_s() -> None:
    """Trainers wrote 1x1 kernels where older UNets had convolutions."""
    one, other = sketch(), sketch()
    parts, _ = plain(one.get_submodule(LINEAR).weight)
    merge(one, file_of(LINEAR, parts))
    merge(other, file_of(LINEAR, {k: v[..., None, None] if v.dim() == 2 else v for k, v in parts.items()}))
    assert torch.equal(one.get_submodule(LINEAR).weight, other.get_submodule(LINEAR).weight)


# -- PEFT ----------------------------------------------------------------------------------------------------


def _peft_configs() -> dict[str, Any]:
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    targets = ["to_q", "time_emb_proj", "conv1", "conv_shortcut"]
    lora: dict[str, Any] = {"r": RANK, "lora_alpha": 5, "target_modules": targets, "init_lora_weights": False}
    pattern = {"resnets.0.time_emb_proj": 11, "conv1": 2}
    other: dict[str, Any] = {"r": RANK, "alpha": 5, "target_modules": targets, "init_weights": False}
    return {
        "LoRA": LoraConfig(**lora),
        "rank-stabilised": LoraConfig(**lora, use_rslora=True),
        "alphas by name": LoraConfig(**lora, alpha_pattern=pattern, rank_pattern={"to_q": 2}),
        "DoRA": LoraConfig(**lora, use_dora=True),
        "with biases": LoraConfig(**{**lora, "target_modules": ["time_emb_proj", "conv1"]}, lora_bias=True),
        "LoHa": LoHaConfig(**other),
        "LoHa, Tucker": LoHaConfig(**other, use_effective_conv2d=True),
        "LoKr": LoKrConfig(**other),
        "LoKr, whole": LoKrConfig(**{**other, "r": 64}),
        "LoKr, Tucker": LoKrConfig(**other, use_effective_conv2d=True, decompose_both=True, decompose_factor=4),
    }


PEFT_CASES = (
    *("LoRA", "rank-stabilised", "alphas by name", "DoRA", "with biases", "LoHa", "LoHa, Tucker", "LoKr"),
    *("LoKr, whole", "LoKr, Tucker"),
)


@pytest.mark.parametrize("name", PEFT_CASES)
def test_what_peft_saves_is_what_peft_computes(name: str) -> None:
    from peft import get_peft_model
    from peft.utils import get_peft_model_state_dict

    adapted: Any = get_peft_model(sketch(), _peft_configs()[name]).eval()
    own = [(k, p) for k, p in adapted.named_parameters() if any(part in k for part in ("lora_", "hada_", "lokr_"))]
    assert own
    with torch.no_grad():
        for i, (key, p) in enumerate(own):
            p.copy_(p * (1 + 0.3 * drawn(i, *p.shape).abs()) if "magnitude" in key else drawn(i, *p.shape))
    saved = {k: v.clone() for k, v in get_peft_model_state_dict(adapted).items()}
    assert all(k.startswith("base_model.model.") for k in saved)
    unet = sketch()
    merge(unet, read(saved, name, from_config(adapted.peft_config["default"].to_dict(), name)))
    changed = 0
    for module in MODULES:
        x = inputs(module)
        expected = adapted.base_model.model.get_submodule(module)(x).detach()
        close(unet.get_submodule(module)(x), expected, 400)
        changed += not torch.equal(expected, sketch().get_submodule(module)(x))
    assert changed == (2 if name == "with biases" else 4)


# -- what does not go together -------------------------------------------------------------------------------


def _broken(name: str, w: torch.Tensor) -> Weights:
    good, conv = plain(w)[0], loha(w)[0]
    if name == "two kinds":
        return {**good, **{k: v for k, v in conv.items() if k != "alpha"}}
    if name == "DoRA of nothing":
        return {"dora_scale": torch.ones(len(w), 1)}
    if name == "DoRA of another length":
        return {**good, "dora_scale": torch.ones(len(w) - 1, 1)}
    if name == "alpha alone":
        return {"alpha": torch.tensor(1.0)}
    if name == "two alphas":
        return {**good, "alpha": torch.ones(2)}
    if name == "LoHa of two sizes":
        return {**conv, "hada_w2_b": conv["hada_w2_b"][:, :-1]}
    if name == "LoHa without a half":
        return {k: v for k, v in conv.items() if k != "hada_w2_a"}
    if name == "LoHa with half a core":
        return {**conv, "hada_t1": torch.ones(RANK, RANK, 1, 1)}
    if name == "LoKr of another size":
        return {**lokr_whole(w)[0], "lokr_w1": torch.ones(3, 2)}
    if name == "LoKr with one factor":
        return {"lokr_w1": torch.ones(4, 2)}
    if name == "LoKr whole and in parts":
        return {**lokr_whole(w)[0], "lokr_w2_a": torch.ones(2, 2), "lokr_w2_b": torch.ones(2, 2)}
    if name == "a middle of another rank":
        return {**good, "lora_mid.weight": torch.ones(RANK + 1, RANK, 3, 3)}
    if name == "a difference of another shape":
        return {"diff": torch.ones(3, 3)}
    if name == "a scalar difference":
        return {"diff": torch.tensor(1.0)}
    if name == "a bias of another length":
        return {**good, "diff_b": torch.ones(3)}
    if name == "not finite":
        return {**good, "lora_up.weight": torch.full_like(good["lora_up.weight"], float("nan"))}
    if name == "infinite alpha":
        return {**good, "alpha": torch.tensor(float("inf"))}
    assert name == "whole numbers"
    return {**good, "lora_up.weight": good["lora_up.weight"].int()}


# fmt: off
BROKEN = (
    "two kinds", "DoRA of nothing", "DoRA of another length", "alpha alone", "two alphas", "LoHa of two sizes",
    "LoHa without a half", "LoHa with half a core", "LoKr of another size", "LoKr with one factor",
    "LoKr whole and in parts", "a middle of another rank", "a difference of another shape", "a scalar difference",
    "a bias of another length", "not finite", "infinite alpha", "whole numbers",
)
# fmt: on


@pytest.mark.parametrize("name", BROKEN)
def test_parts_that_do_not_go_together_are_one_line_and_change_nothing(name: str) -> None:
    unet = sketch()
    good = file_of(LINEAR, plain(unet.get_submodule(LINEAR).weight)[0])
    bad = file_of(WIDE, _broken(name, unet.get_submodule(WIDE).weight))
    for take in (merge, Beside):
        with pytest.raises(CheckpointError) as error:
            take(unet, {**good, **bad}, source="mine.safetensors")  # type: ignore[operator]
        message = str(error.value)
        assert "mine.safetensors" in message and stem(WIDE) in message and "\n" not in message
    assert all(torch.equal(v, unet.state_dict()[k]) for k, v in sketch().state_dict().items())
