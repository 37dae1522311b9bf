"""Saved CONDITIONING: equal bits back, and one clear line for everything that a file cannot hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from conditionings import draw, refusal, same_bits, sdxl, small
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from pgp_core.conditioning.checks import REFUSED, SIZES
from pgp_core.conditioning.entries import load, save
from pgp_core.errors import CheckpointError
from pgp_core.files import checkpoints

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prompt.safetensors"


# -- round trip ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_bit_for_bit(dtype: torch.dtype, batch: int, path: Path) -> None:
    entries = [sdxl(dtype, batch)]
    entries[0][0][0, 0, 0] = -0.0
    save(path, entries)
    assert same_bits(load(path).entries, entries)


def test_every_kind_of_option_comes_back(path: Path) -> None:
    entries = [
        sdxl(
            start_percent=0.1,
            end_percent=0.7000000000000001,
            strength=1,
            guidance=3.5,
            aesthetic_score=6.0,
            prompt_type="negative",
            nothing=None,
            yes=True,
            negative_zero=-0.0,
            nested={"ids": [1, 2.0, None, {"ü": "ß\ud800"}]},
            attention_mask=torch.ones(1, 77, dtype=torch.bool),
            t5xxl_ids=torch.arange(256).view(1, 256),
            t5xxl_weights=draw(1, 256, dtype=torch.bfloat16),
            scalar=torch.tensor(2.5),
            transposed=torch.arange(6.0).view(2, 3).t(),
        ),
        [draw(2, 154, 4096, dtype=torch.float16), {}],
        [draw(1, 256, 16), {"pooled_output": None, "guidance": None}],
    ]
    save(path, entries, "a prompt\nof two lines, ü", "0" * 64)
    saved = load(path)
    assert same_bits(saved.entries, entries)
    assert (saved.prompt, saved.encoder_sha256) == ("a prompt\nof two lines, ü", "0" * 64)
    assert saved.created_by == "pgp-diffsr 0.1.0"


def test_tensors_that_share_memory(path: Path) -> None:
    whole = draw(1, 10, 8)
    entries = [[whole, {"pooled_output": whole[:, 0]}], [whole[:, :4], {"pooled_output": whole[:, 0]}], [whole, {}]]
    save(path, entries)
    assert same_bits(load(path).entries, entries)


def test_nothing_that_was_given_is_changed_or_held(path: Path) -> None:
    entries = [small(width=512)]
    entries[0][0].requires_grad_()
    before = entries[0][0].detach().clone()
    save(path, tuple(tuple(e) for e in entries))
    assert torch.equal(entries[0][0], before)
    loaded = load(path).entries
    assert not loaded[0][0].requires_grad
    # Not the file's own memory: another program may write to the file.
    content = path.read_bytes()
    path.write_bytes(bytes(len(content)))
    assert torch.equal(loaded[0][0], before)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda n: n not in REFUSED and n not in SIZES
)


@given(st.dictionaries(NAMES, JSON | st.sampled_from(["context", "a.b", "__metadata__", ""]), max_size=5), NAMES)
def test_options_of_any_name_and_value(tmp_path_factory: Any, values: dict[str, Any], tensor: str) -> None:
    for name in ("pooled_output", "start_percent", "end_percent", "strength"):
        values.pop(name, None)
    path = tmp_path_factory.mktemp("names") / "x.safetensors"
    tensor = "context" if tensor == "pooled_output" else tensor
    entries = [[draw(1, 2, 3), {**values, tensor: draw(2, 2)}]]
    save(path, entries)
    assert same_bits(load(path).entries, entries)


@given(st.integers(1, 3), st.integers(1, 90), st.integers(1, 70), st.sampled_from(DTYPES))
def test_contexts_of_any_size(tmp_path_factory: Any, batch: int, tokens: int, dim: int, dtype: torch.dtype) -> None:
    path = tmp_path_factory.mktemp("sizes") / "x.safetensors"
    entries = [[draw(batch, tokens, dim, dtype=dtype), {"pooled_output": draw(1, dim, dtype=dtype)}]]
    save(path, entries)
    assert same_bits(load(path).entries, entries)


def test_the_file_is_what_the_design_says(path: Path) -> None:
    save(path, [sdxl()], "clean")
    with safe_open(path, framework="pt") as f:
        assert sorted(f.keys()) == ["0.context", "0.options.pooled_output"]
        metadata = json.loads(f.metadata()["pgp.conditioning"])
    assert (metadata["format"], metadata["version"]) == ("pgp-diffsr/conditioning", 1)
    assert (metadata["prompt"], metadata["encoder_sha256"]) == ("clean", None)
    assert metadata["entries"][0]["values"]["target_height"] == 1536


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_belongs_to_one_graph_is_refused_by_name(name: str, path: Path) -> None:
    for value in (torch.ones(1, 4, 4), 1.0, object()):
        refusal(lambda value=value: save(path, [small(), small(**{name: value})]), name, "entry 2")  # type: ignore[misc]
    assert not path.exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), ["extra", "object"]),
        ([torch.ones(1)], ["extra", "list"]),
        ((1, 2), ["extra", "tuple"]),
        ({1: 2}, ["extra", "dict"]),
        (float("nan"), ["extra", "nan"]),
        (float("inf"), ["extra", "inf"]),
        (10**5000, ["extra"]),
        (torch.tensor([1.0, float("nan")]), ["extra", "not finite"]),
        (torch.tensor([float("inf")], dtype=torch.float16), ["extra", "not finite"]),
        (torch.zeros(1, 0), ["extra", "empty"]),
        (torch.zeros(2, dtype=torch.complex64), ["extra", "complex64"]),
        (torch.zeros(2, dtype=torch.float8_e4m3fn), ["extra", "float8"]),
        (torch.eye(2).to_sparse(), ["extra", "plain tensor"]),
        (torch.zeros(2, device="meta"), ["extra", "plain tensor"]),
    ],
    ids=lambda v: "" if isinstance(v, list) and v and isinstance(v[0], str) else type(v).__name__,
)
def test_options_that_no_file_can_keep(value: Any, words: list[str], path: Path) -> None:
    refusal(lambda: save(path, [small(extra=value)]), *words)
    assert not path.exists()


def test_lists_nested_too_deep(path: Path) -> None:
    deep: list[Any] = []
    deep.append(deep)
    refusal(lambda: save(path, [small(extra=deep)]), "extra")


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [[draw(1, 5, 8)]],
        [draw(1, 5, 8)],
        [[None, {}]],
        [[draw(5, 8), {}]],
        [[draw(1, 1, 5, 8), {}]],
        [[draw(1, 0, 8), {}]],
        [[torch.zeros(1, 5, 8, dtype=torch.int64), {}]],
        [[torch.full((1, 5, 8), float("nan")), {}]],
        [[draw(1, 5, 8), {"pooled_output": draw(4)}]],
        [[draw(1, 5, 8), {"pooled_output": draw(2, 4)}]],
        [[draw(3, 5, 8), {"pooled_output": draw(2, 4)}]],
        [[draw(1, 5, 8), {"pooled_output": "text"}]],
        [[draw(1, 5, 8), {"": 1}]],
        [[draw(1, 5, 8), {3: 1}]],
        [[draw(1, 5, 8), {"\ud800": 1}]],
        [small(width=-1)],
        [small(width="512")],
        [small(target_height=10**7)],
        [small(crop_w=True)],
        [small(crop_w=torch.ones(100, 100))],
        [small(start_percent="0")],
    ],
)
def test_entries_that_are_none(entries: Any, path: Path) -> None:
    refusal(lambda: save(path, entries))
    assert not path.exists()


def test_a_prompt_and_a_hash_that_are_none(path: Path) -> None:
    refusal(lambda: save(path, [small()], 3), "prompt")  # type: ignore[arg-type]
    refusal(lambda: save(path, [small()], "", "abc"), "encoder_sha256", "64")
    refusal(lambda: save(path, [small()], "x" * 2_000_000), "2000", "shorten")


# -- writing -------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_written(tensors: Any, target: str, metadata: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    save(path, [small()])
    before = path.read_bytes()
    monkeypatch.setattr(checkpoints, "save_file", half_written)
    with pytest.raises(CheckpointError, match=r"prompt\.safetensors cannot be written.*No space left"):
        save(path, [small(width=3)])
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
