"""Guidance that meets a UNet of another plan: said, and never of a plan that only goes by another name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pgp_core.errors import GuidanceError
from pgp_core.files.weights import open_weights
from pgp_core.guidance.fits import other_plan
from pgp_core.guidance.spec import METADATA_KEY, GuidanceSpec
from pgp_core.restorers.nano import model as nano
from pgp_core.unet.inspect import inspect_unet
from pgp_core.unet.known import SDXL
from pgp_core.unet.plan import PrunePlan, load_plan

PAPER, COARSE = load_plan("pgp-sdxl"), load_plan("pgp-sdxl-coarse")
FULL = PrunePlan.full(SDXL)
#: The same blocks by another name, and without the stacks that stay whole.
RENAMED = PrunePlan("mine", "sdxl", {s: e for s, e in PAPER.stacks.items() if len(e.keep) < e.depth}, {"by": "hand"})


def old(plan: PrunePlan, base: str = "sdxl") -> GuidanceSpec:
    """As files say it that hold the plan's hash alone."""
    return GuidanceSpec(base=base, plan_sha256=plan.sha256())


@pytest.mark.parametrize("spec", [GuidanceSpec().with_plan(p) for p in (PAPER, RENAMED)] + [old(PAPER)])
def test_the_same_blocks_are_the_same_plan(spec: GuidanceSpec) -> None:
    assert other_plan(spec, PAPER.blocks) is None


def test_a_mismatch_names_the_plan_and_both_sets_of_blocks() -> None:
    for spec in (GuidanceSpec().with_plan(PAPER), old(PAPER)):
        note = other_plan(spec, COARSE.blocks)
        assert note is not None and "\n" not in note
        assert "plan pgp-sdxl" in note and "0, 3, 6, 9" in note and "0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in note
    mine = other_plan(GuidanceSpec().with_plan(RENAMED), FULL.blocks)
    assert mine is not None and "plan mine" in mine
    whole = other_plan(GuidanceSpec().with_plan(FULL), PAPER.blocks)
    assert whole is not None and "plan full" in whole


@pytest.mark.parametrize(
    "spec",
    [
        GuidanceSpec(),
        GuidanceSpec(trained=False).with_plan(COARSE),
        old(RENAMED),
        GuidanceSpec(plan_sha256="0" * 64),
        replace(GuidanceSpec(), base="a later one", plan_sha256="0" * 64),
    ],
    ids=["none", "untrained", "hash of an unknown plan", "hash of nothing", "unknown family"],
)
def test_nothing_is_said_of_what_is_not_known(spec: GuidanceSpec) -> None:
    assert other_plan(spec, PAPER.blocks) is None


def test_the_bundled_guidance_has_the_bundled_unet_s_plan() -> None:
    with open_weights(nano.FOLDER / nano.UNET_FILE) as file:
        blocks = inspect_unet(file).plan.blocks
    with open_weights(nano.FOLDER / nano.GUIDANCE_FILE) as file:
        spec = GuidanceSpec.from_metadata(file.metadata)
    assert other_plan(spec, blocks) is None
    # Not for want of knowing.
    assert "plan pgp-nano," in str(other_plan(spec, load_plan("pgp-nano-coarse").blocks))


@pytest.mark.parametrize(
    "changes", [{"plan_blocks": [1]}, {"plan_blocks": {"a": 1}}, {"plan_blocks": {"a": [1, 0]}}, {"plan_name": {}}]
)
def test_what_is_no_plan_is_refused(changes: dict[str, object]) -> None:
    data = GuidanceSpec().with_plan(PAPER).to_json() | changes
    with pytest.raises(GuidanceError, match="incomplete or wrong"):
        GuidanceSpec.from_metadata({METADATA_KEY: json.dumps(data)})
