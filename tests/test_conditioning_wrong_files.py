"""Files that hold no CONDITIONING, another kind of thing, or damage: one clear line each."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conditionings import draw, refusal, same_bits, small
from safetensors.torch import save_file

from pgp_core.conditioning.entries import load, save, to_sampling
from pgp_core.errors import CheckpointError, PGPError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prompt.safetensors"


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
        (header(entries=[{"values": {"x": float("nan")}, "tensors": ["pooled_output"]}]), ["JSON", "NaN"]),
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
