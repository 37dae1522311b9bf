"""Saved CONDITIONING: equal bits back, and one clear line for everything that a file cannot hold."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from pgp_core import checkpoints, conditioning
from pgp_core.conditioning import load, save, to_sampling
from pgp_core.errors import CheckpointError, ConditioningError, PGPError

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def sdxl(dtype: torch.dtype = torch.float32, batch: int = 1, **options: Any) -> list[Any]:
    """An entry as core's CLIPTextEncodeSDXL outputs it."""
    sizes = {"width": 1024, "height": 768, "crop_w": 8, "crop_h": 16, "target_width": 2048, "target_height": 1536}
    pooled = draw(batch, 1280, dtype=dtype, seed=1)
    return [draw(batch, 77, 2048, dtype=dtype), {"pooled_output": pooled, **sizes, **options}]


def small(**options: Any) -> list[Any]:
    return [draw(1, 5, 8), {"pooled_output": draw(1, 4, seed=1), **options}]


def same_bits(a: Any, b: Any) -> bool:
    """Equality that knows dtypes, types, and the sign of zero."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        return torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same_bits, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same_bits(a[k], b[k]) for k in a)
    return type(a) is type(b) and repr(a) == repr(b)


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
    lambda n: n not in conditioning.REFUSED and n not in conditioning.SIZES
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


def refusal(action: Callable[[], Any], *words: str) -> None:
    """It raises a ConditioningError of one line with these words."""
    with pytest.raises(ConditioningError) as error:
        action()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", sorted(conditioning.REFUSED))
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


# -- files that are none -------------------------------------------------------------------------------------


def header(**changes: Any) -> dict[str, Any]:
    values = {"values": {"width": 512}, "tensors": ["pooled_output"]}
    return {"format": "pgp-diffsr/conditioning", "version": 1, "entries": [values], **changes}


def write(path: Path, text: str | dict[str, Any] | None, **tensors: torch.Tensor) -> Path:
    """A file whose metadata and tensors need not fit."""
    stored = {"0.context": draw(1, 5, 8), "0.options.pooled_output": draw(1, 4), **tensors}
    if isinstance(text, dict):
        text = json.dumps(text)
    save_file(stored, path, {} if text is None else {"pgp.conditioning": text})
    return path


def test_a_file_with_what_it_needs_only(path: Path) -> None:
    saved = load(write(path, header()))
    assert (saved.prompt, saved.encoder_sha256, saved.created_by) == ("", None, "")
    assert same_bits(saved.entries, [[draw(1, 5, 8), {"width": 512, "pooled_output": draw(1, 4)}]])


ENTRY: dict[str, Any] = {"values": {}, "tensors": ["pooled_output"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["JSON"]),
        ("{", ["JSON"]),
        ("[" * 100_000, ["JSON"]),
        ("[]", ["format"]),
        ("null", ["format"]),
        ("{}", ["format"]),
        (header(format="pgp-diffsr/guidance"), ["format"]),
        (header(version=2), ["version 2", "update"]),
        (header(version=0), ["version"]),
        (header(version=True), ["version", "True"]),
        (header(version="1"), ["version", "'1'"]),
        (header(version=None), ["version"]),
        (header(prompt=["text"]), ["prompt", "list"]),
        (header(created_by=3), ["created_by", "3"]),
        (header(encoder_sha256="0" * 63), ["encoder_sha256"]),
        (header(entries=None), ["entries"]),
        (header(entries={}), ["entries"]),
        (header(entries=[]), ["entries"]),
        (header(entries=[ENTRY, 3]), ["entry 2", "values"]),
        (header(entries=[{"values": [], "tensors": []}]), ["values"]),
        (header(entries=[{"values": {}, "tensors": "pooled_output"}]), ["tensors"]),
        (header(entries=[{"values": {}, "tensors": [3]}]), ["tensors"]),
        (header(entries=[{"values": {}, "tensors": [["a"]]}]), ["tensors"]),
        (header(entries=[{"values": {}, "tensors": ["a", "a"]}]), ["twice"]),
        (header(entries=[{"values": {"a": 1}, "tensors": ["a"]}]), ["twice"]),
        (header(entries=[ENTRY, ENTRY]), ["lacks", "1.context", "1.options.pooled_output"]),
        (header(entries=[{"values": {}, "tensors": []}]), ["belong", "0.options.pooled_output"]),
        (header(entries=[{"values": {"area": [1, 2, 3, 4]}, "tensors": ["pooled_output"]}]), ["area"]),
        (header(entries=[{"values": {"width": "wide"}, "tensors": ["pooled_output"]}]), ["width", "wide"]),
        (header(entries=[{"values": {"x": float("nan")}, "tensors": ["pooled_output"]}]), ["x", "nan"]),
        (json.dumps(header()).replace("512", "9" * 5000), ["prompt.safetensors"]),
    ],
)
def test_metadata_that_is_wrong(text: Any, words: list[str], path: Path) -> None:
    write(path, text)
    refusal(lambda: load(path), "prompt.safetensors", *words)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"0.context": draw(5, 8)}, ["context", "(5, 8)"]),
        ({"0.context": torch.zeros(1, 5, 8, dtype=torch.int32)}, ["context", "int32"]),
        ({"0.context": torch.zeros(1, 5, 8, dtype=torch.float8_e5m2)}, ["context", "float8"]),
        ({"0.context": torch.zeros(1, 0, 8)}, ["context", "empty"]),
        ({"0.context": torch.full((1, 5, 8), float("inf"))}, ["context", "not finite"]),
        ({"0.options.pooled_output": draw(4)}, ["pooled_output", "(4,)"]),
        ({"0.options.pooled_output": draw(3, 4)}, ["pooled_output", "(3, 4)"]),
        ({"0.options.a\nb": draw(3, 4)}, ["belong"]),
    ],
)
def test_tensors_that_are_wrong(tensors: dict[str, torch.Tensor], words: list[str], path: Path) -> None:
    write(path, header(), **tensors)
    refusal(lambda: load(path), "prompt.safetensors", *words)


@pytest.mark.parametrize(
    ("keys", "metadata", "word"),
    [
        (["pgp.peam.0.weight"], {"pgp.guidance": "{}"}, "guidance"),
        (["input_blocks.0.0.weight"], {"pgp.plan": "{}"}, "pruned UNet"),
        (["input_blocks.0.0.weight"], {}, "UNet"),
        (["unet.down_blocks.1.lora_A.weight", "lora_unet_mid.lora_down.weight"], {}, "LoRA"),
        (["clip_l", "clip_g"], {}, "embedding"),
        (["latent_tensor"], {}, "latent"),
        (["something"], {"format": "pt"}, "pgp.conditioning"),
    ],
)
def test_other_kinds_of_file_are_called_by_name(
    keys: list[str], metadata: dict[str, str], word: str, path: Path
) -> None:
    save_file({k: torch.zeros(2) for k in keys}, path, metadata)
    refusal(lambda: load(path), "prompt.safetensors is no saved conditioning", word)


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(CheckpointError, match="no file"):
        load(path)


# -- files that were damaged ---------------------------------------------------------------------------------


def _truncated(content: bytes, r: random.Random) -> bytes:
    return content[: r.randrange(len(content))]


def _flipped_header_bytes(content: bytes, r: random.Random) -> bytes:
    end = 8 + int.from_bytes(content[:8], "little")
    damaged = bytearray(content)
    for _ in range(r.randint(1, 4)):
        damaged[r.randrange(end)] ^= 1 << r.randrange(8)
    return bytes(damaged)


def _flipped_data(content: bytes, r: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(r.randint(1, 50)):
        damaged[r.randrange(len(content))] ^= 1 << r.randrange(8)
    return bytes(damaged)


def _with_header(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    end = 8 + int.from_bytes(content[:8], "little")
    data = json.loads(content[8:end])
    change(data)
    text = json.dumps(data).encode()
    return len(text).to_bytes(8, "little") + text + content[end:]


def _swapped_shapes(content: bytes, r: random.Random) -> bytes:
    def change(data: dict[str, Any]) -> None:
        a, b = r.sample([k for k in data if k != "__metadata__"], 2)
        if r.random() < 0.5:
            data[a], data[b] = data[b], data[a]
        else:
            r.shuffle(data[a]["shape"])
            data[b]["shape"] = [*data[b]["shape"], 1]

    return _with_header(content, change)


def _wrong_dtype(content: bytes, r: random.Random) -> bytes:
    """Of the same width, or none at all."""

    def change(data: dict[str, Any]) -> None:
        key = r.choice([k for k in data if k != "__metadata__"])
        data[key]["dtype"] = r.choice(["BF16", "I16", "U16", "F16", "I32", "F32", "F8_E8M0", "C64", "F4", "", None])

    return _with_header(content, change)


def _missing_metadata(content: bytes, r: random.Random) -> bytes:
    def change(data: dict[str, Any]) -> None:
        if r.random() < 0.3:
            del data["__metadata__"]
        else:
            inner = json.loads(data["__metadata__"]["pgp.conditioning"])
            part = r.choice([inner, inner["entries"][0]])
            del part[r.choice(list(part))]
            data["__metadata__"]["pgp.conditioning"] = json.dumps(inner)

    return _with_header(content, change)


def _json_of_other_types(content: bytes, r: random.Random) -> bytes:
    def change(data: dict[str, Any]) -> None:
        inner = json.loads(data["__metadata__"]["pgp.conditioning"])
        part = r.choice([inner, inner["entries"][0], inner["entries"][0]["values"], inner["entries"]])
        key = r.choice(list(part)) if isinstance(part, dict) else r.randrange(len(part))
        part[key] = r.choice([None, True, -1, 1e300, "text", [], [[]], {}, {"a": [None]}, float("nan"), 10**30])
        data["__metadata__"]["pgp.conditioning"] = json.dumps(inner)

    return _with_header(content, change)


def _lost_tensor(content: bytes, r: random.Random) -> bytes:
    def change(data: dict[str, Any]) -> None:
        key = r.choice([k for k in data if k != "__metadata__"])
        data[f"{key}x"] = data.pop(key)

    return _with_header(content, change)


MUTATIONS = [
    _truncated,
    _flipped_header_bytes,
    _flipped_data,
    _swapped_shapes,
    _wrong_dtype,
    _missing_metadata,
    _json_of_other_types,
    _lost_tensor,
]


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__.strip("_"))
def test_a_damaged_file_loads_or_is_refused_in_one_line(
    mutate: Callable[[bytes, random.Random], bytes], seed: int, path: Path
) -> None:
    context = draw(1, 5, 8, dtype=torch.float16)
    pooled = {"pooled_output": draw(1, 4, dtype=torch.float16), "width": 512, "t5xxl_ids": torch.arange(6).view(1, 6)}
    save(path, [[context, pooled], small()], "a prompt")
    path.write_bytes(mutate(path.read_bytes(), random.Random(seed)))
    try:
        saved = load(path)
    except PGPError as e:
        assert "\n" not in str(e)
    else:
        for context, options in saved.entries:
            assert context.dim() == 3
            assert all(torch.isfinite(t).all() for t in (context, *options.values()) if isinstance(t, torch.Tensor))
        # What was read can be written again.
        save(path, saved.entries, saved.prompt, saved.encoder_sha256)
        assert same_bits(load(path).entries, saved.entries)
        for entry in saved.entries:
            try:
                to_sampling([entry], (64, 64))
            except PGPError as e:
                assert "\n" not in str(e)


def test_the_damage_is_noticed(path: Path) -> None:
    """Every kind but flipped data, which is another conditioning, is refused at least once; most are always."""
    save(path, [small(width=512), small()], "a prompt")
    content = path.read_bytes()
    for mutate in MUTATIONS:
        refused = 0
        for seed in range(16):
            path.write_bytes(mutate(content, random.Random(seed)))
            try:
                load(path)
            except PGPError:
                refused += 1
        always = mutate in (_truncated, _lost_tensor)
        assert refused == 16 if always else refused > 0 or mutate is _flipped_data, mutate.__name__


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


# -- for the command line ------------------------------------------------------------------------------------


def test_sampling_takes_the_sizes_in_sdxl_s_order() -> None:
    entry = sdxl()
    prompt = to_sampling([entry], (64, 96))
    # As comfy.model_base.SDXL.encode_adm embeds them: height, width, crop_h, crop_w, target_height, target_width.
    assert prompt.time_ids == (768.0, 1024.0, 16.0, 8.0, 1536.0, 2048.0)
    assert prompt.context is entry[0]
    assert prompt.pooled is entry[1]["pooled_output"]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({}, (64.0, 96.0, 0.0, 0.0, 64.0, 96.0)),
        ({"width": 512, "height": 256}, (256.0, 512.0, 0.0, 0.0, 256.0, 512.0)),
        ({"target_width": 512, "target_height": 256}, (64.0, 96.0, 0.0, 0.0, 256.0, 512.0)),
        ({"crop_h": 3}, (64.0, 96.0, 3.0, 0.0, 64.0, 96.0)),
    ],
)
def test_sizes_that_the_file_lacks_are_the_canvas_s(options: dict[str, Any], ids: tuple[float, ...]) -> None:
    assert to_sampling([small(**options)], (64, 96)).time_ids == ids


def test_options_that_sdxl_ignores_are_ignored() -> None:
    mask = torch.ones(1, 5)
    entry = small(start_percent=0.0, end_percent=1, strength=0.5, guidance=3.5, aesthetic_score=6, attention_mask=mask)
    assert to_sampling([entry], (8, 8)).time_ids == (8.0, 8.0, 0.0, 0.0, 8.0, 8.0)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], ["0 entries"]),
        ([small(), small()], ["2 entries", "combined"]),
        ([sdxl(batch=2)], ["2 pictures"]),
        ([[draw(1, 5, 8), {}]], ["pooled"]),
        ([[draw(1, 5, 8), {"pooled_output": None}]], ["pooled"]),
        ([small(start_percent=0.2)], ["part of the sampling"]),
        ([small(end_percent=0.9)], ["part of the sampling"]),
        ([small(strength=0)], ["part of the sampling"]),
        ([small(concat_latent_image=torch.ones(1, 4, 8, 8))], ["concat_latent_image"]),
        ([small(mask=torch.ones(1, 8, 8))], ["mask"]),
    ],
)
def test_what_the_command_line_cannot_do(entries: Any, words: list[str]) -> None:
    refusal(lambda: to_sampling(entries, (64, 64), "neg.safetensors"), "neg.safetensors", *words)


def test_a_canvas_without_pixels() -> None:
    refusal(lambda: to_sampling([small()], (0, 64)), "64 x 0")
