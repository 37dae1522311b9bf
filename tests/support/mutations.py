"""Damaged and foreign model files, some 400 of them, made from five good ones; every run makes the same.

Needs torch and the standard library alone, so that ComfyUI's Python makes them too.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
import random
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

BIN, TWIN = "FaithDiff.bin", "FaithDiff.safetensors"
UNET, GUIDANCE, NANO = "unet.safetensors", "guidance.safetensors", "nano.safetensors"
BASES = (BIN, TWIN, UNET, GUIDANCE, NANO)


@dataclass(frozen=True)
class Mutation:
    """One file to write.

    Attributes:
        name: for the file, without its ending.
        base: which of :data:`BASES` it is made from.
        write: makes it at a path.
    """

    name: str
    base: str
    write: Callable[[Path], None]

    @property
    def file(self) -> str:
        """The file's name; its ending is the base's."""
        return self.name + Path(self.base).suffix


@dataclass
class Raw:
    """A safetensors file taken apart, so that files can be written that the library would not write."""

    entries: dict[str, tuple[str, list[int], bytes]]
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Raw:
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        body = memoryview(data)[8 + length :]
        return cls(
            {k: (v["dtype"], v["shape"], bytes(body[slice(*v["data_offsets"])])) for k, v in header.items()}, metadata
        )

    def header(self) -> dict[str, Any]:
        result: dict[str, Any] = {"__metadata__": self.metadata} if self.metadata else {}
        offset = 0
        for key, (dtype, shape, data) in self.entries.items():
            result[key] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
            offset += len(data)
        return result

    def write(self, path: Path, header: Any = None, text: bytes | None = None, length: int | None = None) -> None:
        """Write it; header, its text or its length may be false."""
        if text is None:
            text = json.dumps(self.header() if header is None else header).encode()
            text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write((len(text) if length is None else length).to_bytes(8, "little"))
            file.write(text)
            for _, _, data in self.entries.values():
                file.write(data)

    def copy(self) -> Raw:
        return Raw(dict(self.entries), copy.deepcopy(self.metadata))


def mutations(folder: Path, seed: int = 0) -> Iterator[Mutation]:
    """All of them. ``folder`` holds :data:`BASES`."""
    # What is read alike is not damaged alike again: the twin shows diffusers' names, nano another topology.
    yield from _bytes(BIN, (folder / BIN).read_bytes(), seed)
    yield from _pickled(torch.load(folder / BIN, weights_only=True), seed)
    for base in (TWIN, UNET, GUIDANCE, NANO):
        raw = Raw.read(folder / base)
        if base in (UNET, GUIDANCE):
            yield from _bytes(base, (folder / base).read_bytes(), seed)
            yield from _headers(base, raw)
        if base != NANO:
            yield from (m for m in _tensors(base, raw, seed) if base != TWIN or _of_names(m.name))
        if base != TWIN:
            yield from _metadata(base, raw)


def remember_readings(setattr_: Callable[[Any, str, Any], Any], weights_file: Any) -> None:
    """Let :mod:`pgp_core.weights_file` unpickle a file once, however often it is opened in a row; errors are not kept.

    Each mutation must be a new file: what was read stays mapped.
    """
    read, last = weights_file._open_torch, dict[str, Any]()

    def once(path: Path) -> Any:
        key = path, path.stat().st_ino, path.stat().st_mtime_ns
        if last.get("key") != key:
            last.clear()
            last.update(file=read(path), key=key)
        return last["file"]

    setattr_(weights_file, "_open_torch", once)


def _of_names(name: str) -> bool:
    """Whether it is names that are changed."""
    return any(word in name for word in ("number", "key", "no ", "without", "renamed", "block", "stack", "prefixed"))


# -- bytes ---------------------------------------------------------------------------------------------------


def _stem(base: str, what: str) -> str:
    return f"{Path(base).stem}-{Path(base).suffix[1:4]}-{what}"


def _bytes(base: str, data: bytes, seed: int) -> Iterator[Mutation]:
    rng = random.Random(f"{seed}/{base}")
    head = 8 + int.from_bytes(data[:8], "little") if base != BIN else _pickle_end(data)
    cuts = [0, 5, 8, rng.randrange(9, head), rng.randrange(head, len(data)), len(data) // 2, len(data) - 1]
    for n in cuts:
        yield Mutation(_stem(base, f"cut at {n}"), base, lambda p, n=n: _put(p, data[:n]))
    yield Mutation(_stem(base, "longer"), base, lambda p: _put(p, data + b"\0" * 999))
    regions = {"head": (0, head, 10), "tail": (len(data) - 4000, len(data), 8 if base == BIN else 1)}
    regions["data"] = (head, len(data), 2)
    for region, (start, end, count) in regions.items():
        for i in range(count):
            at = [rng.randrange(start, end) for _ in range(1 + 3 * (i % 2))]
            flips = [(a, 1 << rng.randrange(8)) for a in at]
            yield Mutation(_stem(base, f"flip {region} {i}"), base, lambda p, f=flips: _put(p, _flipped(data, f)))
    noise = rng.randbytes(4000)
    yield Mutation(_stem(base, "noise"), base, lambda p: _put(p, noise))
    yield Mutation(_stem(base, "zeros"), base, lambda p: _put(p, bytes(len(data) // 8)))


def _pickle_end(data: bytes) -> int:
    """Where the pickle in a file of ``torch.save`` ends: it stands first."""
    return data.index(b"PK", 4)


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _flipped(data: bytes, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for at, bit in flips:
        changed[at] ^= bit
    return bytes(changed)


# -- safetensors ---------------------------------------------------------------------------------------------


def _headers(base: str, raw: Raw) -> Iterator[Mutation]:
    good = json.dumps(raw.header()).encode()
    good += b" " * (-len(good) % 8)
    for name, length in {
        "0": 0,
        "one less": len(good) - 1,
        "more": len(good) + 64,
        "2^40": 1 << 40,
        "2^63": 1 << 63,
    }.items():
        yield Mutation(_stem(base, f"length {name}"), base, lambda p, n=length: raw.write(p, length=n))
    texts = {
        "deep": b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "list": b"[1, 2, 3]",
        "no tensors": b"{}",
        "null": b"null",
        "not utf-8": good[:500] + b"\xff\xfe" + good[502:],
        "key twice": good.replace(b"{", b'{"conv_in.weight": {"dtype":"F16","shape":[0],"data_offsets":[0,0]},', 1),
    }
    for name, text in texts.items():
        yield Mutation(_stem(base, f"header {name}"), base, lambda p, t=text: raw.write(p, text=t))
    fields = {
        "dtype F7": ("dtype", "F7"),
        "dtype number": ("dtype", 3),
        "shape negative": ("shape", [-1, -4]),
        "shape text": ("shape", "big"),
        "shape huge": ("shape", [1 << 40, 1 << 20]),
        "shape overflows": ("shape", [1 << 62, 1 << 62, 4]),
        "offsets back": ("data_offsets", [64, 0]),
        "offsets outside": ("data_offsets", [1 << 50, (1 << 50) + 64]),
        "offsets one": ("data_offsets", [0]),
        "no entry": (None, 7),
    }
    for name, (key, value) in fields.items():
        header = raw.header()
        tensor = _wide(raw)
        header[tensor] = {**header[tensor], key: value} if key else value
        yield Mutation(_stem(base, name), base, lambda p, h=header: raw.write(p, h))


_NUMBERED = {
    TWIN: ("down_blocks.0.resnets.{}.conv1.weight", "denoise_encoder.down_blocks.{}.resnets.0.conv2.weight"),
    UNET: ("input_blocks.{}.0.op.weight", "input_blocks.4.1.transformer_blocks.{}.norm1.weight"),
    GUIDANCE: ("pgp.alignment.blocks.{}.out.weight",),
}


def _wide(raw: Raw) -> str:
    """A matrix that is not square."""
    return next(k for k, (_, s, _) in raw.entries.items() if len(s) == 2 and s[0] != s[1])


def _tensors(base: str, raw: Raw, seed: int) -> Iterator[Mutation]:
    rng = random.Random(f"{seed}/{base}/tensors")
    keys = list(raw.entries)
    wide = _wide(raw)
    dtype, shape, data = raw.entries[wide]

    def edited(name: str, edit: Callable[[Raw], Any]) -> Mutation:
        def write(path: Path) -> None:
            changed = raw.copy()
            edit(changed)
            changed.write(path)

        return Mutation(_stem(base, name), base, write)

    def put(key: str, *entry: Any) -> Callable[[Raw], Any]:
        return lambda r: r.entries.__setitem__(key, entry)

    def rename(change: Callable[[str], str]) -> Callable[[Raw], Any]:
        return lambda r: setattr(r, "entries", {change(k): v for k, v in r.entries.items()})

    def without(test: Callable[[str], bool]) -> Callable[[Raw], Any]:
        return lambda r: setattr(r, "entries", {k: v for k, v in r.entries.items() if not test(k)})

    shapes = {
        "transposed": shape[::-1],
        "flat": [math.prod(shape)],
        "extra axis": [*shape, 1],
    }
    for name, other in shapes.items():
        yield edited(name, put(wide, dtype, other, data))
    yield edited("zero size", put(wide, dtype, [0, *shape[1:]], b""))
    yield edited("scalar", put(wide, dtype, [], data[:2]))
    yield edited("grown", put(wide, dtype, [2 * shape[0], *shape[1:]], data * 2))
    sizes = {
        "I32": 4,
        "BOOL": 1,
        "I64": 8,
        "U8": 1,
        "F8_E4M3": 1,
        "F8_E5M2": 1,
        "F8_E8M0": 1,
        "F64": 8,
        "F32": 4,
        "C64": 8,
    }
    for kind, size in sizes.items():
        yield edited(f"dtype {kind}", put(wide, kind, shape, bytes(math.prod(shape) * size)))
    yield edited("dtype F4", put(wide, "F4", shape, bytes(math.prod(shape) // 2)))
    yield edited(
        "all BOOL",
        lambda r: r.entries.update({k: ("BOOL", s, bytes(math.prod(s))) for k, (_, s, _) in r.entries.items()}),
    )
    yield edited(
        "all F8",
        lambda r: r.entries.update({k: ("F8_E4M3", s, bytes(math.prod(s))) for k, (_, s, _) in r.entries.items()}),
    )
    for key in rng.sample(keys, 3):
        yield edited(f"without {key}", without(lambda k, key=key: k == key))
        yield edited(f"renamed {key}", rename(lambda k, key=key: k + "x" if k == key else k))
    for name, stem in {
        "newline": "two\nlines",
        "long": "x" * 100_000,
        "empty": "",
        "control": "\x1b[31m\0",
        "dots": "input_blocks.1.0.",
        "surrogates": "\u202e\u2028end",
    }.items():
        yield edited(f"key {name}", put(stem, *raw.entries[keys[-1]]))
    nines = "9" * 5000
    for pattern in _NUMBERED[base]:
        for name, number in {
            "99": "99",
            "10^9": "1000000000",
            "5000 digits": nines,
            "01": "01",
            "arabic": "\u0663",
        }.items():
            yield edited(f"number {name} in {pattern[:24]}", put(pattern.format(number), *raw.entries[keys[-1]]))
    block = next((k for k in keys if ".transformer_blocks.1." in k), None)
    if block:
        stack = block.partition(".transformer_blocks.")[0]
        one = f"{stack}.transformer_blocks.1."
        yield edited("block 1 is 99", rename(lambda k: k.replace(one, f"{stack}.transformer_blocks.99.")))
        yield edited("block 1 is gone", without(lambda k: k.startswith(one)))
        yield edited("stack is gone", without(lambda k: k.startswith(stack + ".")))
        yield edited("stack is elsewhere", rename(lambda k: k.replace(stack, "elsewhere", 1)))
        yield edited("half a block", without(lambda k: k.startswith(one + "attn1")))
        yield edited("no blocks", without(lambda k: ".transformer_blocks." in k))
    tops = sorted({k.partition(".")[0] for k in keys})
    for top in rng.sample(tops, min(4, len(tops))):
        yield edited(f"no {top}", without(lambda k, top=top: k.partition(".")[0] == top))
    yield edited("prefixed", rename(lambda k: "model.diffusion_model." + k))
    yield edited("half prefixed", rename(lambda k: "unet." + k if hash(len(k)) % 2 else k))
    yield edited("first half", lambda r: [r.entries.pop(k) for k in keys[len(keys) // 2 :]])
    shuffled = rng.sample(keys, len(keys))
    yield edited(
        "names shuffled", lambda r: setattr(r, "entries", dict(zip(shuffled, r.entries.values(), strict=True)))
    )


_DEEP = "[" * 100_000 + "]" * 100_000


def _metadata(base: str, raw: Raw) -> Iterator[Mutation]:
    """What a file says about itself, in types and sizes that it should not have."""
    values: dict[str, Any] = {
        "not JSON": "{",
        "empty": "",
        "list": "[]",
        "number": "3",
        "deep": _DEEP,
        "huge": json.dumps({"format": "x" * 2_000_000}),
    }
    for key in ("pgp.plan", "pgp.model", "pgp.guidance"):
        if key not in raw.metadata:
            continue
        data = json.loads(raw.metadata[key])
        for name, text in values.items():
            yield _said(base, raw, f"{key} {name}", {**raw.metadata, key: text})
        yield _said(base, raw, f"{key} is gone", {k: v for k, v in raw.metadata.items() if k != key})
        for name, change in _CHANGES[key].items():
            text = json.dumps({**data, **change(data)})
            yield _said(base, raw, f"{key} {name}", {**raw.metadata, key: text})
    for name, metadata in {"list": [1], "numbers": {"pgp.plan": 3}, "text": "x", "nested": {"pgp.plan": {}}}.items():
        yield _said(base, raw, f"metadata {name}", metadata)


def _said(base: str, raw: Raw, name: str, metadata: Any) -> Mutation:
    return Mutation(_stem(base, name), base, lambda p: Raw(raw.entries, metadata).write(p))


def _stack(data: Any, **change: Any) -> dict[str, Any]:
    name = "down_blocks.1.attentions.0"
    return {"stacks": {**data["stacks"], name: {**data["stacks"][name], **change}}}


def _site(data: Any, **change: Any) -> dict[str, Any]:
    return {"sites": [{**data["sites"][0], **change}, *data["sites"][1:]]}


_CHANGES: dict[str, dict[str, Callable[[Any], dict[str, Any]]]] = {
    "pgp.plan": {
        "version 99": lambda _: {"version": 99},
        "version 10^30": lambda _: {"version": 10**30},
        "unknown topology": lambda _: {"topology": "sd9"},
        "other topology": lambda d: {
            "topology": {"sdxl": "pgp-nano", "pgp-nano": "sdxl"}[d["topology"]],
            "stacks": {"down_blocks.1.attentions.0": d["stacks"]["down_blocks.1.attentions.0"]},
        },
        "other blocks": lambda d: _stack(d, keep=[]),
        "blocks beyond": lambda d: _stack(d, keep=[0, 99]),
        "depth 10^9": lambda d: _stack(d, depth=10**9, keep=[10**9 - 1]),
        "keep text": lambda d: _stack(d, keep="all"),
        "stacks list": lambda _: {"stacks": []},
        "foreign stack": lambda d: {"stacks": {**d["stacks"], "down_blocks.7.attentions.0": {"depth": 1, "keep": [0]}}},
        "name of two lines": lambda d: {"name": "two\nlines", **_stack(d, keep=[])},
        "name is null": lambda _: {"name": None},
    },
    "pgp.model": {
        "NaN": lambda _: {"latent_std": float("nan")},
        "infinite": lambda _: {"latent_std": float("inf")},
        "negative": lambda _: {"latent_std": -2},
        "too large": lambda _: {"latent_std": 10**400},
        "a list": lambda _: {"latent_std": [1]},
        "prediction list": lambda _: {"prediction": ["epsilon"]},
        "prediction object": lambda _: {"prediction": {}},
        "prediction two lines": lambda _: {"prediction": "a\nb"},
        "prediction null": lambda _: {"prediction": None},
    },
    "pgp.guidance": {
        "format": lambda _: {"format": "x"},
        "version 99": lambda _: {"version": 99},
        "version text": lambda _: {"version": "1"},
        "parts unknown": lambda _: {"parts": ["two\nlines"]},
        "parts of lists": lambda _: {"parts": [[1]]},
        "null phase": lambda _: {"null_phase": []},
        "sites text": lambda _: {"sites": "x"},
        "no sites": lambda _: {"sites": []},
        "many sites": lambda d: {"sites": d["sites"] * 100_000},
        "two sites": lambda d: {"sites": d["sites"] * 2},
        "site of another fusion": lambda d: _site(d, fusion="two\nlines"),
        "peam instead": lambda d: _site(d, fusion="peam"),
        "channels 10^400": lambda d: _site(d, channels=10**400),
        "channels 10^9": lambda d: _site(d, channels=10**9),
        "channels wider": lambda d: _site(d, channels=16384),
        "channels NaN": lambda d: _site(d, channels=float("nan")),
        "channels infinite": lambda d: _site(d, channels=float("inf")),
        "elsewhere": lambda d: _site(d, module="two\nlines"),
        "in the decoder": lambda d: _site(d, module="up_blocks.0.resnets.0"),
        "level -1": lambda d: _site(d, level=-1),
        "encoder text": lambda _: {"lq_encoder": "x"},
        "encoder of 10^6 levels": lambda d: {"lq_encoder": {**d["lq_encoder"], "channels": [32] * 1_000_000}},
        "64 layers": lambda _: {"alignment": {"layers": 64}},
        "layers 10^18": lambda _: {"alignment": {"layers": 10**18}},
        "slope": lambda _: {"slope": "steep"},
        "trained null": lambda _: {"trained": None},
        "plan hash list": lambda _: {"plan_sha256": [1]},
        "base list": lambda _: {"base": []},
    },
}


# -- torch.save ----------------------------------------------------------------------------------------------


class _Rebuilt:
    """Pickles as a tensor of any size over a storage."""

    def __init__(self, storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...]):
        self.arguments = (_quietly(storage.storage), offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.arguments


def _quietly(make: Callable[[], Any]) -> Any:
    """What PyTorch warns of, but files of others hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


class _Code:
    """Pickles as a call."""

    def __reduce__(self) -> Any:
        return print, ("this ran",)


def _pickled(weights: dict[str, torch.Tensor], seed: int) -> Iterator[Mutation]:
    rng = random.Random(f"{seed}/pickled")
    key = "mid_block.attentions.0.proj_in.weight"
    encoder = "denoise_encoder.down_blocks.{}.resnets.0.conv2.weight"
    w = weights[key]
    small = torch.zeros(4)

    def nested(n: int) -> Any:
        result: Any = []
        for _ in range(n):
            result = [result]
        return result

    def looped() -> Any:
        loop: dict[str, Any] = {}
        loop["state_dict"] = loop
        return loop

    with_one: dict[str, Any] = {
        "int32": w.int(),
        "bool": w.bool(),
        "complex": w.to(torch.complex64),
        "float8": w.to(torch.float8_e4m3fn),
        "float64": w.double(),
        "sparse": w.to_sparse(),
        "csr": _quietly(lambda: w.float().to_sparse_csr()),
        "meta": w.to("meta"),
        "parameter": torch.nn.Parameter(w),
        "quantised": _quietly(lambda: torch.quantize_per_tensor(w.float(), 0.1, 0, torch.qint8)),
        "text": "a weight",
        "none": None,
        "expanded": w[:1].expand_as(w),
        "transposed in memory": w.t().contiguous().t(),
        "negated view": torch._neg_view(w),
        "empty": w[:0],
        "other shape": w.repeat(2, 1),
        "beyond its storage": _Rebuilt(small, 0, (10**6, 10**4), (10**4, 1)),
        "2^60 elements": _Rebuilt(small, 0, (1 << 30, 1 << 30), (1 << 30, 1)),
        "negative stride": _Rebuilt(small, 0, (2, 2), (-1, 1)),
        "negative size": _Rebuilt(small, 0, (-2, 2), (2, 1)),
        "offset outside": _Rebuilt(small, 1 << 40, tuple(w.shape), tuple(w.stride())),
        "code": _Code(),
        "nested": nested(200),
    }
    for name, value in with_one.items():
        yield _saved(f"one is {name}", {**weights, key: value})
    pattern = {"encoder": encoder, "layer": "information_transformer_layes.{}.ln_1.weight"}
    pattern["block"] = "mid_block.attentions.0.transformer_blocks.{}.norm1.weight"
    for name, text in pattern.items():
        for number in ("99", "1000000000", "9" * 5000, "-1"):
            yield _saved(f"{name} {number[:12]}", {**weights, text.format(number): small})
    for group in ("denoise_encoder.", "condition_embedding.", "information_transformer_layes.", "spatial_ch_projs."):
        yield _saved(f"no {group}", {k: v for k, v in weights.items() if not k.startswith(group)})
    for name in rng.sample(list(weights), 4):
        yield _saved(f"without {name}", {k: v for k, v in weights.items() if k != name})
    for name, data in {
        "list": list(weights.values())[:5],
        "tensor": small,
        "empty": {},
        "loop": looped(),
        "number keys": dict(enumerate(list(weights.values())[:5])),
        "wrapped thrice": {"state_dict": {"module": {"model": weights}}},
        "wrapped in text": {"state_dict": "x"},
        "deep": nested(300),
        "new line": {**weights, "two\nlines": small},
        "trainer": {"epoch": 3, "optimizer": {"lr": 0.1}},
    }.items():
        yield _saved(name, data)

    def legacy(path: Path, damage: Callable[[bytes], bytes]) -> None:
        torch.save(weights, path, _use_new_zipfile_serialization=False)
        path.write_bytes(damage(path.read_bytes()))

    yield Mutation(_stem(BIN, "legacy"), BIN, lambda p: legacy(p, lambda d: d))
    for n in (10, 600, 200_000, 1_000_000):
        yield Mutation(_stem(BIN, f"legacy cut at {n}"), BIN, lambda p, n=n: legacy(p, lambda d: d[:n]))
    for i in range(5):
        flips = [(rng.randrange(100_000), 1 << rng.randrange(8)) for _ in range(2)]
        yield Mutation(_stem(BIN, f"legacy flip {i}"), BIN, lambda p, f=flips: legacy(p, lambda d: _flipped(d, f)))
    yield Mutation(_stem(BIN, "plain pickle"), BIN, lambda p: _put(p, pickle.dumps({"x": [1, 2]})))
    yield Mutation(_stem(BIN, "other zip"), BIN, _zip)


def _saved(name: str, data: Any) -> Mutation:
    return Mutation(_stem(BIN, name), BIN, lambda p: torch.save(data, p))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no weights")
