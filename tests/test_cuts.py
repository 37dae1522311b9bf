"""What the tables of cut blocks are made of: blind plans, and the change against the first row."""

from __future__ import annotations

import pytest

from pgp_core.evaluation.cuts import blindly, cuts_markdown, randomly
from pgp_core.evaluation.summary import summarise
from pgp_core.plan import load_plan

STACK = "up_blocks.0.attentions.1"


@pytest.mark.parametrize(
    ("way", "count", "kept"),
    [("first", 2, (0, 1)), ("last", 2, (2, 3)), ("spread", 2, (0, 3)), ("spread", 1, (0,)), ("last", 1, (3,))],
)
def test_blind_plans_keep_what_their_names_say(way: str, count: int, kept: tuple[int, ...]) -> None:
    base = load_plan("pgp-nano-coarse")
    plan = blindly(base, [STACK], count, way)
    assert plan.stacks[STACK].keep == kept
    assert {s: e for s, e in plan.stacks.items() if s != STACK} == {s: e for s, e in base.stacks.items() if s != STACK}


@pytest.mark.parametrize("removed", [0, 4, 12])
def test_random_plans_cut_the_decoder_alone_and_empty_no_stack(removed: int) -> None:
    base = load_plan("pgp-nano-coarse")
    drawn = [randomly(base, removed, seed) for seed in range(20)]
    for plan in drawn:
        assert plan.removed == base.removed + removed
        assert all(e.keep and set(e.keep) <= set(base.stacks[s].keep) for s, e in plan.stacks.items())
        assert all(e == base.stacks[s] for s, e in plan.stacks.items() if not s.startswith("up_blocks"))
    assert removed == 0 or len({str(p.stacks) for p in drawn}) > 1
    assert randomly(base, removed, 3) == drawn[3]


def test_the_change_is_taken_with_the_same_noise() -> None:
    def row(label: str, *values: float) -> dict[str, object]:
        scores = {"photograph": {"psnr_y": [20.0, 22.0], "haarpsi": list(values)}}
        return {"label": label, "scores": scores, **summarise(scores)}

    table = {"kind": "fine", "rows": [row("nothing", 0.5, 0.7), row("something", 0.49, 0.67)]}
    # Changes of -0.01 and -0.03: their mean is -0.02, their deviation 0.0141, though the rows spread by 0.14.
    first, second = cuts_markdown(table).splitlines()[2:]
    assert first.endswith("| +0.0000 ± 0.0000 |")
    assert second.endswith("| 0.5800 ± 0.1273 | -0.0200 ± 0.0141 |")
