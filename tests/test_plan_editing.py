"""Plans changed by hand: exact blocks and numbers of blocks; what cannot be is named."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import drawn, kept

from pgp_core.errors import PlanError
from pgp_core.planner import by_count, edited, importance, parse_keep
from pgp_core.unet.known import NANO, SDXL
from pgp_core.unet.plan import PrunePlan, load_plan


def test_exact_blocks_from_text() -> None:
    text = "up_blocks.0.attentions.1: 9, 0,3 ; mid_block.attentions.0: 4\ndown_blocks.1.attentions.0: none;"
    keep = parse_keep(text)
    plan = edited(PrunePlan.full(SDXL), keep)
    assert plan.stacks["up_blocks.0.attentions.1"].keep == (0, 3, 9)
    assert plan.stacks["mid_block.attentions.0"].keep == (4,)
    assert plan.stacks["down_blocks.1.attentions.0"].keep == ()
    assert plan.removed == 7 + 9 + 2
    assert parse_keep("") == {}
    assert kept(edited(load_plan("pgp-sdxl"), {})) == kept(load_plan("pgp-sdxl"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("up_blocks.0.attentions.1", "up_blocks.0.attentions.1"),
        (": 1", "': 1'"),
        ("mid_block.attentions.0: 1,,2", "''"),
        ("mid_block.attentions.0:", "none"),
        ("mid_block.attentions.0: 1-3", "'1-3'"),
        ("mid_block.attentions.0: -1", "'-1'"),
        ("mid_block.attentions.0: ٣", "٣"),
        ("mid_block.attentions.0: 1, 1", "block 1 is named twice"),
        ("mid_block.attentions.0: 1; mid_block.attentions.0: 2", "named twice"),
        ("mid_block.attentions.0: 10", "no block 10: it has 0 to 9"),
        ("mid_block.attentions.5: 1", "mid_block.attentions.5"),
        ("input_blocks.4.1: 1", "input_blocks.4.1"),
    ],
)
def test_wrong_text_is_named(text: str, words: str) -> None:
    with pytest.raises(PlanError) as error:
        edited(PrunePlan.full(SDXL), parse_keep(text))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(PlanError):
        edited(PrunePlan.full(NANO), parse_keep(text))


def test_blocks_kept_per_stage_are_the_preset_s_spread() -> None:
    plan = edited(PrunePlan.full(SDXL), {"encoder": 1, "bottleneck": 1, "decoder": 4})
    assert kept(plan) == kept(load_plan("pgp-sdxl"))


def test_an_edited_plan_s_own_name_is_always_plain() -> None:
    once = edited(PrunePlan.full(NANO, "mine"), {})
    assert once.name == edited(once, {}).name == "mine-edited"
    for odd in ("a/b", "x" * 200):
        assert edited(PrunePlan.full(NANO, odd), {}).name == "edited"


def test_counts_go_by_the_report_where_there_is_one() -> None:
    measured = drawn(SDXL, 5)
    plan = edited(PrunePlan.full(SDXL), {"decoder": 4, "mid_block.attentions.0": [7]}, measured)
    assert kept(plan) == kept(by_count(PrunePlan.full(SDXL), measured, 4)) | {"mid_block.attentions.0": (7,)}
    # Fewer: of those that stay. More: the others come back, the most important first.
    few = edited(load_plan("pgp-sdxl"), {"up_blocks.0.attentions.0": 2}, measured)
    assert set(few.stacks["up_blocks.0.attentions.0"].keep) < {0, 3, 6, 9}
    many = edited(load_plan("pgp-sdxl"), {"up_blocks.0.attentions.0": 5}, measured)
    scores = importance(measured)
    extra = max((n for n in range(10) if n % 3), key=lambda n: scores["up_blocks.0.attentions.0", n].phi)
    assert set(many.stacks["up_blocks.0.attentions.0"].keep) == {0, 3, 6, 9, extra}


@pytest.mark.parametrize(
    "keep",
    [
        {"decoder": -1},
        {"mid_block.attentions.0": 5},
        {"mid_block.attentions.0": True},
        {"middle": 1},
        {"mid_block.attentions.0": [0, "1"]},
        {"mid_block.attentions.0": [True]},
        {"decoder": [0, 3]},
    ],
)
def test_wrong_edits(keep: Any) -> None:
    with pytest.raises(PlanError):
        edited(PrunePlan.full(NANO), keep)
