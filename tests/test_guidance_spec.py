"""A guidance file's metadata: back and forth, and one clear line for what is wrong in them."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from narrow_guidance import DOWN, SPEC, TWO_SITES

from pgp_core.errors import GuidanceError
from pgp_core.guidance.module import GuidanceSpec


def metadata(**changes: Any) -> dict[str, str]:
    return {"pgp.guidance": json.dumps(SPEC.to_json() | changes)}


@pytest.mark.parametrize(
    "spec",
    [
        GuidanceSpec(),
        SPEC,
        TWO_SITES,
        GuidanceSpec(
            residual=False, slope=0.01, trained=False, plan_sha256="0" * 64, input_range=(-1.0, 1.0), blocks=1
        ),
    ],
)
def test_metadata_round_trip(spec: GuidanceSpec) -> None:
    text = json.dumps(spec.to_json())
    assert GuidanceSpec.from_metadata({"pgp.guidance": text, "format": "pt"}) == spec


def test_files_from_before_the_slope_was_stored_have_pytorch_s() -> None:
    data = GuidanceSpec().to_json()
    del data["slope"]
    assert GuidanceSpec.from_metadata({"pgp.guidance": json.dumps(data)}).slope == 0.01


def test_the_metadata_of_the_design() -> None:
    data = GuidanceSpec(plan_sha256="abc").to_json()
    assert (data["format"], data["version"], data["base"]) == ("pgp-diffsr/guidance", 1, "sdxl")
    assert data["parts"] == ["lq_adapter", "peam"]
    assert data["sites"][0]["module"] == DOWN
    assert data["sites"][0]["channels"] == 320
    assert (data["input_range"], data["residual"]) == ([0.0, 1.0], True)
    assert (data["null_phase"], data["plan_sha256"]) == ("own", "abc")


def site(**changes: Any) -> list[dict[str, Any]]:
    return [SPEC.sites[0].to_json() | changes]


def adapter(**changes: Any) -> dict[str, Any]:
    return {"channels": [32, 32, 32, 32], "unshuffle": 8, "blocks": 2} | changes


def missing(key: str) -> dict[str, str]:
    return {"pgp.guidance": json.dumps({k: v for k, v in SPEC.to_json().items() if k != key})}


BAD: dict[str, tuple[dict[str, str] | None, str]] = {
    # what is wrong: metadata, words that the message must hold
    "none": (None, "no PGP-DiffSR guidance"),
    "empty": ({}, "no PGP-DiffSR guidance"),
    "only others' keys": ({"modelspec.title": "x"}, "no PGP-DiffSR guidance"),
    "no JSON": ({"pgp.guidance": "{format"}, "not valid JSON"),
    "a huge number": ({"pgp.guidance": "9" * 5000}, "pgp.guidance"),
    "nested too deep": ({"pgp.guidance": "[" * 100_000}, "not valid JSON"),
    "no object": ({"pgp.guidance": "[1]"}, "format"),
    "another format": (metadata(format="pgp-diffsr/prune-plan"), "format"),
    "no format": (missing("format"), "format"),
    "newer version": (metadata(version=2), "version 2, this release reads up to 1: update"),
    "version 0": (metadata(version=0), "positive whole number, not 0"),
    "version text": (metadata(version="1"), "positive whole number, not '1'"),
    "version true": (metadata(version=True), "positive whole number, not True"),
    "no version": (missing("version"), "positive whole number, not None"),
    "unknown part": (metadata(parts=["lq_adapter", "peam", "tagger"]), "does not know: tagger"),
    "parts null": (metadata(parts=None), "parts"),
    "parts a number": (metadata(parts=3), "parts"),
    "a part that is an object": (metadata(parts=[{"name": "peam"}]), "parts"),
    "null phase zero": (metadata(null_phase="zero"), "null_phase is 'zero'"),
    "no null phase": (missing("null_phase"), "null_phase"),
    "no adapter": (missing("lq_adapter"), "lq_adapter"),
    "no sites key": (missing("sites"), "sites"),
    "a slope above 1": (metadata(slope=1.5), "slope"),
    "a slope that is no number": (metadata(slope=float("nan")), "not valid JSON: NaN"),
    "no input range": (missing("input_range"), "input_range"),
    "no base": (missing("base"), "base"),
    "an input range of three": (metadata(input_range=[0, 1, 2]), "incomplete or wrong"),
    "an input range without end": (metadata(input_range=[0, float("inf")]), "not valid JSON: Infinity"),
    "an input range that is no number": (metadata(input_range=[float("nan"), 1]), "not valid JSON: NaN"),
    "no sites": (metadata(sites=[]), "no sites"),
    "a site without module": (metadata(sites=[{"channels": 32}]), "module"),
    "a site that is a text": (metadata(sites=["conv_in"]), "incomplete or wrong"),
    "channels a text": (metadata(sites=site(channels="many")), "incomplete or wrong"),
    "no channels": (metadata(lq_adapter=adapter(channels=[])), "level 0"),
    "channels zero": (metadata(sites=site(channels=0), lq_adapter=adapter(channels=[0] * 4)), "impossible sizes"),
    "channels below zero": (metadata(sites=site(channels=-4), lq_adapter=adapter(channels=[-4])), "impossible sizes"),
    "channels absurd": (metadata(lq_adapter=adapter(channels=[32, 10**9])), "impossible sizes"),
    "unshuffle zero": (metadata(lq_adapter=adapter(unshuffle=0)), "impossible sizes"),
    "unshuffle absurd": (metadata(lq_adapter=adapter(unshuffle=100_000)), "impossible sizes"),
    "unshuffle infinite": (metadata(lq_adapter=adapter(unshuffle=float("inf"))), "not valid JSON: Infinity"),
    "blocks absurd": (metadata(lq_adapter=adapter(blocks=10_000)), "impossible sizes"),
    "scale zero": (metadata(sites=site(scale=0)), "impossible sizes"),
    "unknown fusion": (metadata(sites=site(fusion="multiply")), "fusion 'multiply'"),
    "level out of range": (metadata(sites=site(level=4)), "adapter level 4, which is not there"),
    "level below zero": (metadata(sites=site(level=-1)), "adapter level -1, which is not there"),
    "channels that differ": (metadata(sites=site(channels=64)), "64 channels, adapter level 0 gives 32"),
}


@pytest.mark.parametrize(("bad", "words"), BAD.values(), ids=BAD.keys())
def test_bad_metadata_is_refused_in_one_line_that_says_what(bad: dict[str, str] | None, words: str) -> None:
    with pytest.raises(GuidanceError) as error:
        GuidanceSpec.from_metadata(bad, "mine.safetensors")
    message = str(error.value)
    assert "mine.safetensors" in message
    assert words in message
    assert "\n" not in message


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)


def _paths(data: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested JSON data."""
    items: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [prefix, *(p for k, v in items for p in _paths(v, (*prefix, k)))]


@given(st.sampled_from(_paths(SPEC.to_json())[1:]), anything)
def test_metadata_with_one_thing_replaced_raises_nothing_but_guidance_error(path: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(SPEC.to_json())
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with contextlib.suppress(GuidanceError):
        GuidanceSpec.from_metadata({"pgp.guidance": json.dumps(data)})
