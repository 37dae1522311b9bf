"""safetensors files with false headers, and with tensors that are renamed, missing, foreign or of another shape."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .files import GUIDANCE, TWIN, UNET, Mutation, Raw, stem


def headers(base: str, raw: Raw) -> Iterator[Mutation]:
    good = json.dumps(raw.header()).encode()
    good += b" " * (-len(good) % 8)
    for name, length in {
        "0": 0,
        "one less": len(good) - 1,
        "more": len(good) + 64,
        "2^40": 1 << 40,
        "2^63": 1 << 63,
    }.items():
        yield Mutation(stem(base, f"length {name}"), base, lambda p, n=length: raw.write(p, length=n))
    texts = {
        "deep": b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "list": b"[1, 2, 3]",
        "no tensors": b"{}",
        "null": b"null",
        "not utf-8": good[:500] + b"\xff\xfe" + good[502:],
        "key twice": good.replace(b"{", b'{"conv_in.weight": {"dtype":"F16","shape":[0],"data_offsets":[0,0]},', 1),
    }
    for name, text in texts.items():
        yield Mutation(stem(base, f"header {name}"), base, lambda p, t=text: raw.write(p, text=t))
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
        yield Mutation(stem(base, name), base, lambda p, h=header: raw.write(p, h))


_NUMBERED = {
    TWIN: ("down_blocks.0.resnets.{}.conv1.weight", "denoise_encoder.down_blocks.{}.resnets.0.conv2.weight"),
    UNET: ("input_blocks.{}.0.op.weight", "input_blocks.4.1.transformer_blocks.{}.norm1.weight"),
    GUIDANCE: ("pgp.alignment.blocks.{}.out.weight",),
}


def _wide(raw: Raw) -> str:
    """A matrix that is not square."""
    return next(k for k, (_, s, _) in raw.entries.items() if len(s) == 2 and s[0] != s[1])


def tensors(base: str, raw: Raw, seed: int) -> Iterator[Mutation]:
    rng = random.Random(f"{seed}/{base}/tensors")
    keys = list(raw.entries)
    wide = _wide(raw)
    dtype, shape, data = raw.entries[wide]

    def edited(name: str, edit: Callable[[Raw], Any]) -> Mutation:
        def write(path: Path) -> None:
            changed = raw.copy()
            edit(changed)
            changed.write(path)

        return Mutation(stem(base, name), base, write)

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
    for name, foreign in {
        "newline": "two\nlines",
        "long": "x" * 100_000,
        "empty": "",
        "control": "\x1b[31m\0",
        "dots": "input_blocks.1.0.",
        "surrogates": "\u202e\u2028end",
    }.items():
        yield edited(f"key {name}", put(foreign, *raw.entries[keys[-1]]))
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
