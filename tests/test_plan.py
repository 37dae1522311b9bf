"""Prune plans: the format of the design, and a clear error for everything that is not one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgp_core.errors import PlanError
from pgp_core.unet.known import NANO, SDXL
from pgp_core.unet.plan import PrunePlan, StackPlan, load_plan, presets

STACK = "down_blocks.1.attentions.0"

ENCODER = ["down_blocks.1.attentions.0", "down_blocks.1.attentions.1"]
SMALL = ["down_blocks.2.attentions.0", "down_blocks.2.attentions.1", "mid_block.attentions.0"]
DECODER_SMALL = [f"up_blocks.0.attentions.{j}" for j in range(3)]
DECODER = [f"up_blocks.1.attentions.{j}" for j in range(3)]


def valid() -> dict[str, Any]:
    """The design's example with one more stack, as fresh JSON data."""
    return {
        "format": "pgp-diffsr/prune-plan",
        "version": 1,
        "name": "mine",
        "topology": "sdxl",
        "stacks": {
            "down_blocks.1.attentions.0": {"depth": 2, "keep": [0]},
            "up_blocks.0.attentions.1": {"depth": 10, "keep": [0, 4, 9]},
        },
        "provenance": {"method": "by hand", "report": None, "thresholds": {}},
    }


def changed(path: list[str], value: Any) -> dict[str, Any]:
    """The valid plan with one value replaced."""
    data = valid()
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return data


def without(*path: str) -> dict[str, Any]:
    """The valid plan with one key taken out."""
    data = valid()
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return data


# -- presets -----------------------------------------------------------------------------------------------


def test_the_presets_of_the_design() -> None:
    assert {"pgp-sdxl", "pgp-sdxl-coarse", "pgp-nano", "pgp-nano-coarse"} <= set(presets())


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid_and_bears_its_name(name: str) -> None:
    plan = load_plan(name)
    assert plan.name == name
    plan.check({"sdxl": SDXL, "pgp-nano": NANO}[plan.topology])


def test_pgp_sdxl_is_the_paper_s() -> None:
    kept = {k: (s.depth, len(s.keep)) for k, s in load_plan("pgp-sdxl").stacks.items()}
    expected = dict.fromkeys(ENCODER, (2, 1)) | dict.fromkeys(SMALL, (10, 1))
    expected |= dict.fromkeys(DECODER_SMALL, (10, 4)) | dict.fromkeys(DECODER, (2, 2))
    assert kept == expected
    assert load_plan("pgp-sdxl").removed == 2 * 1 + 3 * 9 + 3 * 6


def test_the_coarse_preset_leaves_the_decoder_whole() -> None:
    for stack, entry in load_plan("pgp-sdxl-coarse").stacks.items():
        assert len(entry.keep) == (entry.depth if stack.startswith("up_blocks") else 1)


@pytest.mark.parametrize("names", [("pgp-sdxl-coarse", "pgp-sdxl"), ("pgp-nano-coarse", "pgp-nano")])
def test_the_fine_preset_cuts_what_the_coarse_one_cuts_and_more(names: tuple[str, str]) -> None:
    coarse, fine = (load_plan(n) for n in names)
    for stack, entry in fine.stacks.items():
        assert set(entry.keep) <= set(coarse.stacks[stack].keep)
    assert fine.removed > coarse.removed


# -- reading and writing -----------------------------------------------------------------------------------


def test_reading_gives_what_the_json_says() -> None:
    plan = PrunePlan.from_json(valid())
    assert (plan.name, plan.topology) == ("mine", "sdxl")
    assert plan.stacks == {STACK: StackPlan(2, (0,)), "up_blocks.0.attentions.1": StackPlan(10, (0, 4, 9))}
    assert plan.provenance == {"method": "by hand", "report": None, "thresholds": {}}
    assert plan.removed == 1 + 7
    assert plan.keeps("up_blocks.0.attentions.1", 4)
    assert not plan.keeps("up_blocks.0.attentions.1", 5)
    assert plan.keeps("mid_block.attentions.0", 7), "stacks that the plan does not mention stay whole"


@pytest.mark.parametrize("name", presets())
def test_json_round_trip_of_the_presets(name: str) -> None:
    plan = load_plan(name)
    assert PrunePlan.from_json(plan.to_json()) == plan
    assert PrunePlan.from_json(json.loads(plan.dumps())) == plan


stack_plans = st.integers(0, 12).flatmap(
    lambda depth: st.builds(
        StackPlan,
        st.just(depth),
        st.sets(st.integers(0, max(depth - 1, 0)), max_size=depth).map(lambda kept: tuple(sorted(kept))),
    )
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)
stack_names = st.sampled_from([*ENCODER, *SMALL, *DECODER_SMALL, *DECODER, "down_blocks.0.attentions.0"])


@given(
    st.text(min_size=1),
    st.dictionaries(stack_names, stack_plans, min_size=1),
    st.dictionaries(st.text(), json_values, max_size=3),
)
def test_json_round_trip_of_any_plan(name: str, stacks: dict[str, StackPlan], provenance: dict[str, Any]) -> None:
    plan = PrunePlan(name, "a family of its own", stacks, provenance)
    assert PrunePlan.from_json(json.loads(plan.dumps())) == plan
    assert json.loads(plan.dumps()) == plan.to_json()


def test_stacks_come_in_running_order() -> None:
    data = valid()
    data["stacks"] = {k: {"depth": SDXL.depths[k], "keep": []} for k in sorted(SDXL.depths, reverse=True)}
    assert list(PrunePlan.from_json(data).stacks) == list(SDXL.depths)


def test_the_full_plan_keeps_everything() -> None:
    plan = PrunePlan.full(SDXL)
    assert plan.removed == 0
    assert all(plan.keeps(stack, n) for stack, depth in SDXL.depths.items() for n in range(depth))
    plan.check(SDXL)


def test_depth_and_keep_may_be_nothing() -> None:
    plan = PrunePlan.from_json(changed(["topology"], "other") | {"stacks": {STACK: {"depth": 0, "keep": []}}})
    assert plan.stacks[STACK] == StackPlan(0, ())


def test_a_plan_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(valid()))
    assert load_plan(path) == load_plan(str(path)) == PrunePlan.from_json(valid())


# -- malformed plans ---------------------------------------------------------------------------------------

keep = ["stacks", STACK, "keep"]
MALFORMED: dict[str, tuple[Any, list[str]]] = {
    # what is wrong: data, words that the message must hold
    "no object": ([1, 2], ["is no prune plan"]),
    "nothing": (None, ["is no prune plan"]),
    "no format": (without("format"), ["is no prune plan", "pgp-diffsr/prune-plan"]),
    "another format": (changed(["format"], "pgp-diffsr/guidance"), ["is no prune plan"]),
    "no version": (without("version"), ["version"]),
    "newer version": (changed(["version"], 2), ["version 2", "up to 1", "update"]),
    "version true": (changed(["version"], True), ["version", "True"]),
    "version 1.0": (changed(["version"], 1.0), ["version", "1.0"]),
    "version text": (changed(["version"], "1"), ["version", "'1'"]),
    "version 0": (changed(["version"], 0), ["version", "0"]),
    "no name": (without("name"), ["name"]),
    "empty name": (changed(["name"], ""), ["name"]),
    "no topology": (without("topology"), ["topology"]),
    "topology a number": (changed(["topology"], 3), ["topology"]),
    "no stacks": (without("stacks"), ["stacks"]),
    "empty stacks": (changed(["stacks"], {}), ["stacks"]),
    "stacks a list": (changed(["stacks"], [STACK]), ["stacks"]),
    "provenance a text": (changed(["provenance"], "by hand"), ["provenance"]),
    "an LDM stack name": (changed(["stacks", "input_blocks.4.1"], {"depth": 2, "keep": [0]}), ["input_blocks.4.1"]),
    "a stack name with more": (
        changed(["stacks", STACK + ".transformer_blocks"], {"depth": 2, "keep": [0]}),
        [STACK + ".transformer_blocks"],
    ),
    "a stack name with a newline": (changed(["stacks", STACK + "\n"], {"depth": 2, "keep": [0]}), [STACK]),
    "a stack name with a huge number": (
        changed(["stacks", f"down_blocks.{'9' * 5000}.attentions.0"], {"depth": 2, "keep": [0]}),
        ["down_blocks.99"],
    ),
    "a stack that is a list": (changed(["stacks", STACK], [0]), [STACK, "depth", "keep"]),
    "a stack without depth": (without("stacks", STACK, "depth"), [STACK, "depth"]),
    "a stack without keep": (without("stacks", STACK, "keep"), [STACK, "keep"]),
    "depth a text": (changed(["stacks", STACK, "depth"], "2"), [STACK, "depth '2'"]),
    "depth true": (changed(["stacks", STACK, "depth"], True), [STACK, "depth True"]),
    "depth below zero": (changed(["stacks", STACK, "depth"], -1), [STACK, "depth -1"]),
    "depth absurd": (changed(["stacks", STACK, "depth"], 10**9), [STACK, "depth 1000000000"]),
    "keep a number": (changed(keep, 0), [STACK, "keep"]),
    "keep with a text": (changed(keep, ["0"]), [STACK, "keep", "'0'"]),
    "keep with a fraction": (changed(keep, [0.0]), [STACK, "keep", "0.0"]),
    "keep with true": (changed(keep, [True]), [STACK, "keep", "True"]),
    "keep beyond the depth": (changed(keep, [0, 2]), [STACK, "block 2", "0 to 1"]),
    "keep below zero": (changed(keep, [-1]), [STACK, "block -1"]),
    "keep descending": (changed(keep, [1, 0]), [STACK, "[1, 0]", "ascend"]),
    "keep twice": (changed(keep, [0, 0]), [STACK, "[0, 0]", "once"]),
    "another depth than the family's": (changed(["stacks", STACK, "depth"], 3), [STACK, "2 blocks", "says 3", "sdxl"]),
    "a stack that the family lacks": (
        changed(["stacks", "down_blocks.0.attentions.0"], {"depth": 1, "keep": [0]}),
        ["down_blocks.0.attentions.0", "sdxl"],
    ),
    "another family": (changed(["topology"], "pgp-nano"), ["pgp-nano", "up_blocks.0.attentions.1", "4 blocks", "10"]),
}


@pytest.mark.parametrize(("data", "words"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_plan_is_refused_in_one_line_that_says_what(data: Any, words: list[str]) -> None:
    with pytest.raises(PlanError) as error:
        PrunePlan.from_json(data, "mine.json")
    message = str(error.value)
    assert "mine.json" in message
    for word in words:
        assert word in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "prune plan",
        "[" * 100_000,
        '{"format": ',
        "9" * 5000,
        '{"format": "pgp-diffsr/prune-plan", "version": ' + "1" * 5000 + "}",
    ],
    ids=["empty", "cut off", "no JSON", "nested too deep", "half", "a huge number", "a huge version"],
)
def test_a_file_that_is_no_json_plan(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(PlanError, match=r"mine\.json"):
        load_plan(path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(b"\xff\x00\x81")
    with pytest.raises(PlanError, match="cannot be read"):
        load_plan(path)
    with pytest.raises(PlanError, match="cannot be read"):
        load_plan(tmp_path)


def test_no_such_plan_names_the_bundled_ones() -> None:
    with pytest.raises(PlanError, match=r"no plan named pgp-sdx.*pgp-nano.*pgp-sdxl"):
        load_plan("pgp-sdx")


# -- a plan and a model ------------------------------------------------------------------------------------


def blocks(**changes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """An SDXL model's blocks, some stacks replaced (dots as double underscores)."""
    full = {k: tuple(range(d)) for k, d in SDXL.depths.items()}
    return full | {k.replace("__", "."): v for k, v in changes.items()}


def test_plans_fit_the_models_that_they_were_made_for() -> None:
    PrunePlan.from_json(valid()).check_model(blocks())
    load_plan("pgp-sdxl").check_model(blocks())
    load_plan("pgp-nano").check_model({k: tuple(range(d)) for k, d in NANO.depths.items()})


def test_a_plan_fits_a_model_that_is_pruned_already_if_the_model_has_what_it_keeps() -> None:
    coarse, fine = load_plan("pgp-sdxl-coarse"), load_plan("pgp-sdxl")
    pruned = {k: s.keep for k, s in coarse.stacks.items()}
    fine.check_model(pruned)
    fine.check_model({k: s.keep for k, s in fine.stacks.items()})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            blocks(up_blocks__0__attentions__1=(0, 1, 2, 3, 5, 9)),
            ["up_blocks.0.attentions.1", "block 4", "[0, 1, 2, 3, 5, 9]"],
        ),
        (blocks(up_blocks__0__attentions__1=()), ["up_blocks.0.attentions.1", "block 0"]),
        (blocks(down_blocks__1__attentions__0=(0, 1, 2)), [STACK, "3 blocks", "says 2"]),
        ({"mid_block.attentions.0": (0,)}, [STACK, "no stack"]),
        ({k: tuple(range(d)) for k, d in NANO.depths.items()}, ["up_blocks.0.attentions.1", "block 4"]),
    ],
    ids=["a block that is gone", "an empty stack", "a deeper stack", "no such stack", "another family"],
)
def test_a_plan_that_does_not_fit_names_stack_and_block(model: dict[str, tuple[int, ...]], words: list[str]) -> None:
    with pytest.raises(PlanError) as error:
        PrunePlan.from_json(valid()).check_model(model, "file.safetensors")
    message = str(error.value)
    for word in ["mine", "file.safetensors", *words]:
        assert word in message
    assert "\n" not in message


def test_a_smaller_family_s_plan_does_not_fit_a_deeper_model() -> None:
    with pytest.raises(PlanError, match=r"pgp-nano.*down_blocks\.2\.attentions\.0 has 10 blocks.*says 4"):
        load_plan("pgp-nano").check_model(blocks())


# -- anything at all ---------------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)


@given(anything)
def test_random_json_raises_nothing_but_plan_error(data: Any) -> None:
    with pytest.raises(PlanError):
        PrunePlan.from_json(data)


def _paths(data: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested JSON data."""
    if isinstance(data, dict):
        items: Any = data.items()
    elif isinstance(data, list):
        items = enumerate(data)
    else:
        return [prefix]
    return [prefix, *(p for k, v in items for p in _paths(v, (*prefix, k)))]


@given(st.sampled_from(_paths(valid())[1:]), anything)
def test_a_valid_plan_with_one_thing_replaced_raises_nothing_but_plan_error(path: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(valid())
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        plan = PrunePlan.from_json(data)
    except PlanError:
        return
    assert plan.to_json() == data, "what is accepted is kept as it was"


@given(st.binary(max_size=200))
def test_random_files_raise_nothing_but_plan_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.json"
    path.write_bytes(content)
    with pytest.raises(PlanError):
        load_plan(path)
