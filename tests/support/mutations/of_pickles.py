"""Files of ``torch.save`` that hold what no file of weights should."""

from __future__ import annotations

import pickle
import random
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .files import BIN, Mutation, flipped, put, stem


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


def pickled(weights: dict[str, torch.Tensor], seed: int) -> Iterator[Mutation]:
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

    yield Mutation(stem(BIN, "legacy"), BIN, lambda p: legacy(p, lambda d: d))
    for n in (10, 600, 200_000, 1_000_000):
        yield Mutation(stem(BIN, f"legacy cut at {n}"), BIN, lambda p, n=n: legacy(p, lambda d: d[:n]))
    for i in range(5):
        flips = [(rng.randrange(100_000), 1 << rng.randrange(8)) for _ in range(2)]
        yield Mutation(stem(BIN, f"legacy flip {i}"), BIN, lambda p, f=flips: legacy(p, lambda d: flipped(d, f)))
    yield Mutation(stem(BIN, "plain pickle"), BIN, lambda p: put(p, pickle.dumps({"x": [1, 2]})))
    yield Mutation(stem(BIN, "other zip"), BIN, _zip)


def _saved(name: str, data: Any) -> Mutation:
    return Mutation(stem(BIN, name), BIN, lambda p: torch.save(data, p))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no weights")
