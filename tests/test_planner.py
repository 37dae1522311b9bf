"""From reports to plans: planted importances are found, budgets hold, dials nest, mistakes are named."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import blocks_of, drawn, kept, report, stats

from pgp_core.errors import PlanError, ReportError
from pgp_core.planner import (
    by_budget,
    by_count,
    by_thresholds,
    check_name,
    coarse,
    dial,
    edited,
    importance,
    plan_path,
    removal_order,
    save_plan,
)
from pgp_core.planner.fine import totals
from pgp_core.redundancy.report import Report, load_report
from pgp_core.unet.costs import unet_cost
from pgp_core.unet.known import NANO, NANO_SHAPE, SDXL, SDXL_SHAPE
from pgp_core.unet.plan import PrunePlan, StackPlan, load_plan
from pgp_core.unet.topology import Topology

TOPOLOGIES = [SDXL, NANO]
SMALLEST = [f"up_blocks.0.attentions.{j}" for j in range(3)]
topologies = st.sampled_from(TOPOLOGIES)
seeds = st.integers(0, 10**6)


def removed(plan: PrunePlan) -> set[tuple[str, int]]:
    return {(s, n) for s, e in plan.stacks.items() for n in range(e.depth) if n not in e.keep}


def planted(topology: Topology, seed: int, *stages: str) -> tuple[Report, set[tuple[str, int]]]:
    """A report in which some blocks, at least one of a stack not among them, barely change their input."""
    g = random.Random(seed)
    places = [b for b in blocks_of(topology, *stages) if b[1] != g.randrange(topology.depths[b[0]])]
    found: set[tuple[str, int]] = set()
    g.shuffle(places)
    for stack, n in places[: g.randint(1, len(places))]:
        if sum(s == stack for s, _ in found) < topology.depths[stack] - 1:
            found.add((stack, n))
    scores = {
        b: (g.uniform(0, 0.01), g.uniform(0, 0.01)) if b in found else (g.uniform(0.3, 1.5), g.uniform(1.5, 5))
        for b in blocks_of(topology)
    }
    return report(topology, scores), found


# -- planted importances ------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda t: t.name)
@pytest.mark.parametrize("seed", range(20))
def test_planted_blocks_are_found_by_every_method(topology: Topology, seed: int) -> None:
    full = PrunePlan.full(topology)
    everywhere, found = planted(topology, seed)
    assert removed(by_thresholds(full, everywhere, stages=("encoder", "bottleneck", "decoder"))) == found
    count = {s: d - sum(b[0] == s for b in found) for s, d in topology.depths.items()}
    assert removed(by_count(full, everywhere, count)) == found
    most = sum(d - 1 for d in topology.depths.values())
    assert removed(dial(everywhere, len(found) / most)) == found
    decoder, found = planted(topology, seed, "decoder")
    assert removed(by_thresholds(full, decoder)) == found
    left = {s: [n for n in range(d) if (s, n) not in found] for s, d in topology.depths.items()}
    shape = SDXL_SHAPE if topology is SDXL else NANO_SHAPE
    params, macs, _ = unet_cost(shape, left)
    assert removed(by_budget(full, decoder, max_params=params)) == found
    assert removed(by_budget(full, decoder, max_macs=macs)) == found


@pytest.mark.parametrize("seed", range(20))
def test_coarse_by_report_keeps_the_planted_block_of_each_stack(seed: int) -> None:
    g = random.Random(seed)
    best = {s: g.randrange(d) for s, d in SDXL.depths.items()}
    scores = {(s, n): (1.0 if best[s] == n else g.uniform(0, 0.9), 1.0) for s, n in blocks_of(SDXL)}
    plan = coarse(report(SDXL, scores), SDXL)
    for stack, depth in SDXL.depths.items():
        expected = tuple(range(depth)) if stack.startswith("up") else (best[stack],)
        assert plan.stacks[stack] == StackPlan(depth, expected)


def test_coarse_without_a_report_is_the_preset() -> None:
    assert kept(coarse(None, SDXL, "first")) == kept(load_plan("pgp-sdxl-coarse"))
    assert coarse(None, NANO, "last").stacks["mid_block.attentions.0"].keep == (3,)
    with pytest.raises(PlanError, match="there is none"):
        coarse(None, SDXL)
    with pytest.raises(PlanError, match="middle"):
        coarse(None, SDXL, "middle")  # type: ignore[arg-type]


def test_the_paper_s_count_costs_what_the_paper_s_model_costs() -> None:
    measured = drawn(SDXL, 0)
    plan = by_count(coarse(measured, SDXL), measured, 4)
    assert [len(plan.stacks[s].keep) for s in SMALLEST] == [4, 4, 4]
    assert plan.removed == 47
    assert totals(plan, measured)["params"] == 983_440_644
    assert round(totals(plan, measured)["macs"] / 1e9, 2) == 1769.06
    scores = importance(measured)
    for stack in SMALLEST:
        ranked = sorted(range(10), key=lambda n: scores[stack, n].phi)
        assert set(plan.stacks[stack].keep) == set(ranked[6:])


def test_ties_go_by_kl_and_then_the_later_block_goes_first() -> None:
    stack = "mid_block.attentions.0"
    measured = report(NANO, {(stack, 0): (0.5, 2), (stack, 1): (0.5, 1), (stack, 2): (0.5, 2), (stack, 3): (0.4, 9)})
    assert removal_order(importance(measured)) == [(stack, 3), (stack, 1), (stack, 2), (stack, 0)]
    same = report(NANO, dict.fromkeys(blocks_of(NANO), (0.5, 0.5)))
    assert removal_order(importance(same)) == blocks_of(NANO)[::-1]


def test_the_literal_reading_cuts_what_changes_much() -> None:
    stack = "up_blocks.0.attentions.1"
    scores = dict.fromkeys(blocks_of(NANO), (0.1, 2.0)) | {(stack, 1): (0.2, 1.0), (stack, 2): (0.05, 0.9)}
    full = PrunePlan.full(NANO)
    assert removed(by_thresholds(full, report(NANO, scores), literal=True)) == {(stack, 1)}
    # At the thresholds themselves both readings cut.
    assert removed(by_thresholds(full, report(NANO, scores))) == {(stack, 1), (stack, 2)}
    assert by_thresholds(full, report(NANO, scores), literal=True).provenance["literal"] is True


# -- properties ---------------------------------------------------------------------------------------------


@given(topologies, seeds, st.floats(0, 1), st.floats(0, 1))
def test_dials_nest(topology: Topology, seed: int, a: float, b: float) -> None:
    measured = drawn(topology, seed)
    low, high = dial(measured, min(a, b)), dial(measured, max(a, b))
    assert removed(low) <= removed(high)
    assert all(e.keep for e in high.stacks.values())
    most = sum(d - 1 for d in topology.depths.values())
    assert abs(low.removed - min(a, b) * most) <= 0.5


@given(topologies, seeds)
def test_the_dial_s_ends(topology: Topology, seed: int) -> None:
    measured = drawn(topology, seed)
    scores = importance(measured)
    assert dial(measured, 0).removed == 0
    for stack, entry in dial(measured, 1).stacks.items():
        assert entry.keep == (max(range(entry.depth), key=lambda n: scores[stack, n].phi),)


@given(topologies, seeds, st.floats(0, 2), st.floats(0, 2), st.floats(0, 6))
def test_lower_thresholds_cut_less(topology: Topology, seed: int, a: float, b: float, tau_kl: float) -> None:
    measured, full = drawn(topology, seed), PrunePlan.full(topology)
    low, high = (by_thresholds(full, measured, tau_cos=t, tau_kl=tau_kl, min_blocks=0) for t in (min(a, b), max(a, b)))
    assert removed(low) <= removed(high)


@given(topologies, seeds, st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_a_budget_is_never_exceeded_and_larger_ones_cut_less(
    topology: Topology, seed: int, a: float, b: float, of_macs: bool
) -> None:
    measured = drawn(topology, seed)
    base = coarse(measured, topology)
    shape = SDXL_SHAPE if topology is SDXL else NANO_SHAPE
    which, what = (1, "max_macs") if of_macs else (0, "max_params")
    smallest = unet_cost(shape, {s: [0] for s in topology.depths})[which]
    largest = unet_cost(shape)[which]
    budgets = sorted(int(smallest + x * (largest - smallest)) for x in (a, b))
    plans = [by_budget(base, measured, **{what: n}) for n in budgets]
    for plan, budget in zip(plans, budgets, strict=True):
        assert unet_cost(shape, kept(plan))[which] <= budget
        assert all(e.keep for e in plan.stacks.values())
    assert removed(plans[0]) >= removed(plans[1])


@given(topologies, seeds, st.integers(1, 10**6))
def test_an_impossible_budget_names_the_smallest_which_is_possible(topology: Topology, seed: int, less: int) -> None:
    measured, full = drawn(topology, seed), PrunePlan.full(topology)
    shape = SDXL_SHAPE if topology is SDXL else NANO_SHAPE
    smallest = unet_cost(shape, {s: [0] for s in topology.depths if topology.stage(s) == "decoder"})[0]
    with pytest.raises(PlanError, match=rf"smallest possible is {smallest}\b"):
        by_budget(full, measured, max_params=smallest - less)
    assert unet_cost(shape, kept(by_budget(full, measured, max_params=smallest)))[0] == smallest


def test_both_budgets_hold() -> None:
    measured, full = drawn(SDXL, 3), PrunePlan.full(SDXL)
    params, macs = 2_000_000_000, 2_900_000_000_000
    plan = by_budget(full, measured, params, macs)
    got = unet_cost(SDXL_SHAPE, kept(plan))
    assert got[0] <= params
    assert got[1] <= macs
    assert plan.removed == max(by_budget(full, measured, params).removed, by_budget(full, measured, None, macs).removed)


@given(topologies, seeds, st.sampled_from(["coarse", "thresholds", "count", "budget", "dial"]), st.data())
def test_blocks_that_the_model_lacks_are_not_kept(topology: Topology, seed: int, method: str, data: Any) -> None:
    gone = data.draw(st.sets(st.sampled_from(blocks_of(topology)), max_size=6))
    gone = {b for b in gone if b[1] > 0}
    whole = drawn(topology, seed)
    blocks = {s: {n: b for n, b in bs.items() if (s, n) not in gone} for s, bs in whole.blocks.items()}
    params, macs, _ = unet_cost(SDXL_SHAPE if topology is SDXL else NANO_SHAPE, blocks)
    measured = replace(whole, blocks=blocks, totals={"params": params, "macs": macs})
    full = PrunePlan.full(topology)
    plan = {
        "coarse": lambda: coarse(measured, topology, "last"),
        "thresholds": lambda: by_thresholds(full, measured),
        "count": lambda: by_count(full, measured, 1),
        "budget": lambda: by_budget(full, measured, max_params=params),
        "dial": lambda: dial(measured, 0.3),
    }[method]()
    assert gone <= removed(plan)
    assert all(plan.stacks[s].depth == d for s, d in topology.depths.items())
    plan.check_model({s: tuple(bs) for s, bs in blocks.items()})
    assert PrunePlan.from_json(json.loads(plan.dumps())) == plan


# -- provenance ---------------------------------------------------------------------------------------------


def test_a_plan_says_how_it_came_about() -> None:
    measured = drawn(NANO, 1, partial=True)
    sha = hashlib.sha256(measured.dumps().encode()).hexdigest()
    base = coarse(measured, NANO)
    assert dict(base.provenance) == {
        "method": "coarse",
        "keep": "report",
        "report": sha,
        "partial": True,
        "thresholds": {},
    }
    fine = by_thresholds(base, measured, 0.1, 0.5)
    assert fine.provenance["thresholds"] == {"tau_cos": 0.1, "tau_kl": 0.5}
    assert fine.provenance["literal"] is False
    assert fine.provenance["base"] == {"name": "coarse", "sha256": base.sha256()}
    assert by_budget(base, measured, max_params=10**9).provenance["budget"] == {"params": 10**9}
    assert dial(measured, 0.25).provenance["amount"] == 0.25
    assert dial(measured, 0.25, name="mine").name == "mine"
    for plan in (base, fine, dial(measured, 0.25)):
        assert plan.provenance["report"] == sha
        assert plan.provenance["partial"] is True


# -- bad input ----------------------------------------------------------------------------------------------


def test_thresholds_that_cut_a_whole_stack_are_refused_by_its_name() -> None:
    scores = dict.fromkeys(blocks_of(NANO), (0.9, 9.0))
    scores |= {(s, n): (0.1, 0.1) for s, n in blocks_of(NANO) if s == "up_blocks.0.attentions.2"}
    measured, full = report(NANO, scores), PrunePlan.full(NANO)
    with pytest.raises(PlanError, match=r"0 of the 4 blocks of up_blocks\.0\.attentions\.2.*lower") as error:
        by_thresholds(full, measured)
    assert "\n" not in str(error.value)
    with pytest.raises(PlanError, match="raise"):
        by_thresholds(full, measured, literal=True)
    assert by_thresholds(full, measured, min_blocks=0).stacks["up_blocks.0.attentions.2"].keep == ()
    with pytest.raises(PlanError, match=r"leave 0 .*up_blocks\.0\.attentions\.2.* at least 2"):
        by_thresholds(full, measured, min_blocks=2)


def with_series(measured: Report, series: Any) -> Report:
    blocks = {s: dict(b) for s, b in measured.blocks.items()}
    blocks["mid_block.attentions.0"][1] = replace(blocks["mid_block.attentions.0"][1], series=series)
    return replace(measured, blocks=blocks)


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (drawn(SDXL, 0), "of sdxl, the plan is for pgp-nano"),
        (replace(drawn(NANO, 0), topology="sd3"), "sd3"),
        (drawn(NANO, 0, blocks={}), "no blocks"),
        (with_series(drawn(NANO, 0), {}), "block 1 of mid_block"),
        (with_series(drawn(NANO, 0), {"all": {"phi_cos": stats(float("nan")), "psi_kl": stats(1)}}), "NaN"),
        (drawn(NANO, 0, blocks={"mid_block.attentions.0": {4: None}}), "block 4 of mid_block"),
        (drawn(NANO, 0, blocks={"mid_block.attentions.7": {0: None}}), "mid_block.attentions.7"),
    ],
    ids=["another topology", "unknown topology", "no blocks", "no statistics", "NaN", "a block beyond", "a stack"],
)
def test_a_report_that_does_not_fit(measured: Report, words: str) -> None:
    full = PrunePlan.full(NANO)
    for make in (
        lambda: by_thresholds(full, measured),
        lambda: by_count(full, measured, 1),
        lambda: by_budget(full, measured, 1),
        lambda: dial(measured, 0.5, base=full),
        lambda: coarse(measured, NANO),
        lambda: edited(full, {"decoder": 1}, measured),
    ):
        with pytest.raises(ReportError) as error:
            make()
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_a_report_of_a_newer_version_or_with_nan_in_its_file(tmp_path: Path) -> None:
    data = drawn(NANO, 0).to_json()
    path = tmp_path / "report.json"
    path.write_text(json.dumps(data | {"version": 2}))
    with pytest.raises(ReportError, match="version 2"):
        load_report(path)
    data["blocks"]["mid_block.attentions.0"]["0"]["timesteps"]["all"]["phi_cos"]["mean"] = float("nan")
    path.write_text(json.dumps(data))
    with pytest.raises(ReportError, match="NaN"):
        load_report(path)


def test_numbers_out_of_range() -> None:
    measured, full = drawn(NANO, 0), PrunePlan.full(NANO)
    wrong: list[Any] = [
        lambda: by_thresholds(full, measured, float("nan")),
        lambda: by_thresholds(full, measured, 0.2, -1),
        lambda: by_thresholds(full, measured, stages=()),
        lambda: by_thresholds(full, measured, stages=("middle",)),
        lambda: by_thresholds(full, measured, min_blocks=-1),
        lambda: by_count(full, measured, 0),
        lambda: by_count(full, measured, 5),
        lambda: by_count(full, measured, {"mid_block.attentions.9": 1}),
        lambda: by_count(full, measured, {"mid_block.attentions.0": 1.5}),  # type: ignore[dict-item]
        lambda: by_budget(full, measured),
        lambda: by_budget(full, measured, -1),
        lambda: by_budget(full, measured, 1.5),  # type: ignore[arg-type]
        lambda: dial(measured, -0.1),
        lambda: dial(measured, 1.1),
        lambda: dial(measured, float("nan")),
        lambda: by_thresholds(replace(full, topology="sd3"), replace(measured, topology="sd3")),
    ]
    for make in wrong:
        with pytest.raises((PlanError, ReportError)):
            make()
    with pytest.raises(ReportError, match="macs"):
        by_budget(full, replace(measured, totals={"params": 10**9}), max_macs=5)
    with pytest.raises(ReportError, match="fewer params than its blocks"):
        by_budget(full, replace(measured, totals={"params": 1}), max_params=5)


NAMES = ["../x", "a/b", "a\\b", "", " ", ".hidden", "..", "C:x", "a\nb", "a\0b", "x" * 101, "nul", "x.", " x", 'a"b']


@pytest.mark.parametrize("name", NAMES)
def test_a_name_with_a_path_in_it_is_refused(name: str, tmp_path: Path) -> None:
    for make in (
        lambda: check_name(name),
        lambda: plan_path(tmp_path, name),
        lambda: coarse(None, SDXL, "first", name or " "),
        lambda: edited(PrunePlan.full(NANO), {}, name=name or " "),
    ):
        with pytest.raises(PlanError):
            make()


def test_plain_names_are_allowed(tmp_path: Path) -> None:
    for name in ("mein Plan ü", "pgp-sdxl", "v1.2 (4 of 10)", "計画"):
        assert check_name(name) == name
        assert plan_path(tmp_path, name) == plan_path(tmp_path, name + ".json") == tmp_path / f"{name}.json"


def test_saving(tmp_path: Path) -> None:
    plan, path = coarse(None, NANO, "first"), tmp_path / "new" / "mine.json"
    save_plan(plan, path)
    assert load_plan(path) == plan
    other = coarse(None, NANO, "last")
    with pytest.raises(PlanError, match="there already"):
        save_plan(other, path)
    assert load_plan(path) == plan
    save_plan(other, path, overwrite=True)
    assert load_plan(path) == other
    for bad in (tmp_path / "plan.txt", tmp_path / "new"):
        with pytest.raises(PlanError):
            save_plan(plan, bad)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(PlanError, match="folder"):
        save_plan(plan, tmp_path / "folder.json", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["mine.json"]
