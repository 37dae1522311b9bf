"""What a file says about itself, in types and sizes that it should not have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from .files import Mutation, Raw, stem

_DEEP = "[" * 100_000 + "]" * 100_000


def metadata(base: str, raw: Raw) -> Iterator[Mutation]:
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
    return Mutation(stem(base, name), base, lambda p: Raw(raw.entries, metadata).write(p))


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
        "plan name list": lambda _: {"plan_name": [1]},
        "plan blocks list": lambda _: {"plan_blocks": [1]},
        "plan blocks elsewhere": lambda _: {"plan_name": "two\nlines", "plan_blocks": {"two\nlines": [0]}},
        "plan blocks 10^400": lambda _: {"plan_blocks": {"mid_block.attentions.0": [10**400]}},
        "base list": lambda _: {"base": []},
    },
}
