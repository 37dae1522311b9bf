"""LoRA files with anything in them: applied as a whole, or refused in one line and nothing is changed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lora_layers
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from pgp_core.errors import PGPError
from pgp_core.unet.lora import Beside, diffusers_names, from_metadata, merge, read
from pgp_core.unet.lora.files import load

_PARTS = (
    *("lora_down.weight", "lora_up.weight", "lora_mid.weight", "lora_A.weight", "lora_B.default.weight", "lora_B.bias"),
    *("alpha", "dora_scale", "lora_magnitude_vector", "lora.up.weight", "diff", "diff_b", "w_norm", "b_norm"),
    *("set_weight", "weight", "oft_blocks", "", ".", "lora_A", "on_input"),
    *(f"hada_{n}" for n in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    *(f"lokr_{n}" for n in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
)
_STEMS = (
    *(lora_layers.stem(m) for m in lora_layers.MODULES),
    *(f"unet.{m}" for m in lora_layers.MODULES),
    *(
        "lora_te1_text_model_x",
        "lora_unet_nothing",
        "unet.",
        "lora_unet_",
        "a\x1b[31mb\u202e",
        "\ud83c\udf0b" * 9,
        "x" * 2000,
    ),
)
_SIDES = st.sampled_from((0, 1, 2, 3, 8, 16, 24, 72))
_TENSORS = st.builds(
    lambda shape, dtype, fill: torch.full(shape, fill).to(dtype),
    st.lists(_SIDES, max_size=4).filter(lambda s: len(s) < 4 or max(s) < 24),
    st.sampled_from((torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool)),
    st.sampled_from((0.0, 0.5, -3.0, float("nan"), float("inf"))),
)
_KEYS = st.builds(lambda a, b: f"{a}.{b}", st.sampled_from(_STEMS), st.sampled_from(_PARTS)) | st.text(max_size=20)


@given(st.dictionaries(_KEYS, _TENSORS, max_size=8))
def test_any_tensors_are_applied_or_refused(file: dict[str, torch.Tensor]) -> None:
    unet, before = lora_layers.sketch(), lora_layers.sketch().state_dict()
    try:
        merge(unet, file, source="mine")
    except PGPError as e:
        assert len(str(e).splitlines()) == 1
        assert all(torch.equal(v, before[k]) for k, v in unet.state_dict().items())
    for act in (read, diffusers_names, lambda f: Beside(lora_layers.sketch(), f)):
        try:
            act(file)
        except PGPError as e:
            assert len(str(e).splitlines()) == 1 and not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e]", str(e))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_CONFIGS = st.dictionaries(
    st.sampled_from(("r", "lora_alpha", "alpha", "alpha_pattern", "peft_type", "use_rslora", "init_lora_weights"))
    | st.sampled_from(("unet.lora_alpha", "unet.r", "unet.alpha_pattern")),
    _JSON | st.sampled_from(("LOKR", "LORA", 4, 1e400, 10**400, {"conv_in": 2}, {"conv_in": "x"}, "pissa")),
    max_size=5,
)


@given(_JSON | _CONFIGS, st.booleans())
def test_any_configuration_is_honoured_or_refused(tmp_path_factory: Any, config: Any, beside: bool) -> None:
    folder: Path = tmp_path_factory.mktemp("any")
    text = json.dumps(config)
    parts = lora_layers.plain(torch.zeros(16, 24))[0]
    name = "adapter_model" if beside else "other"
    file = {k: v for k, v in lora_layers.file_of(lora_layers.WIDE, parts).items() if not k.endswith("alpha")}
    save_file(file, folder / f"{name}.safetensors", {"lora_adapter_metadata": text})
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    try:
        load(folder / f"{name}.safetensors")
    except PGPError as e:
        assert len(str(e).splitlines()) == 1


@given(st.text(max_size=40))
def test_any_metadata_is_honoured_or_refused(text: str) -> None:
    try:
        from_metadata({"lora_adapter_metadata": text}, "mine")
    except PGPError as e:
        assert len(str(e).splitlines()) == 1
