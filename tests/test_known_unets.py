"""The table of known UNets against the published configurations, and what files of them are recognised as."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import distilled
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgp_core.errors import CheckpointError, PlanError
from pgp_core.files.weights import WeightsFile
from pgp_core.unet.costs import unet_cost
from pgp_core.unet.inspect import MODEL_KEY, PLAN_KEY, UNetInfo, inspect_unet
from pgp_core.unet.known import NANO_SHAPE, SDXL_KIND, SHAPES, TOPOLOGIES
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import PrunePlan, StackPlan
from pgp_core.unet.prune import prune_state_dict
from pgp_core.unet.topology import KeyMap, stacks_of

DISTILLED = sorted(distilled.CONFIGS)
Shapes = dict[str, tuple[int, ...]]


def shapes_of(unet: torch.nn.Module) -> Shapes:
    return {k: tuple(v.shape) for k, v in unet.state_dict().items()}


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    """Each of the distilled UNets from its configuration, without memory."""
    with torch.device("meta"):
        return {name: distilled.by_diffusers(name) for name in DISTILLED}


@pytest.fixture(scope="module")
def whole() -> dict[str, Shapes]:
    """Names and shapes of every UNet of SDXL's kind."""
    with torch.device("meta"):
        return {t.name: shapes_of(build_unet(SHAPES[t.name])) for t in SDXL_KIND}


def inspected(shapes: Shapes, metadata: dict[str, str] | None = None, plan: PrunePlan | None = None) -> UNetInfo:
    return inspect_unet(WeightsFile("x", shapes, frozenset(shapes), torch.zeros, metadata or {}), plan)


# -- the table -----------------------------------------------------------------------------------------------


def test_every_published_unet_is_in_the_table() -> None:
    assert {t.name for t in SDXL_KIND} == {"sdxl", *DISTILLED} == TOPOLOGIES.keys() - {NANO_SHAPE.topology.name}


@pytest.mark.parametrize("name", DISTILLED)
def test_a_row_is_the_published_configuration(name: str, published: dict[str, Any], whole: dict[str, Shapes]) -> None:
    theirs = shapes_of(published[name])
    assert whole[name] == theirs
    found = stacks_of(theirs)
    assert {s: len(n) for s, n in found.items()} == TOPOLOGIES[name].depths
    assert list(found) == list(TOPOLOGIES[name].depths)


@pytest.mark.parametrize("name", DISTILLED)
def test_parameters_are_those_published(name: str, published: dict[str, Any]) -> None:
    count = sum(p.numel() for p in published[name].parameters())
    assert count // 10**6 == distilled.MILLIONS[name]
    assert unet_cost(SHAPES[name])[0] == count


@pytest.mark.parametrize("name", DISTILLED)
def test_multiply_accumulates_are_those_of_a_counter(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    # Odd sides are rounded up where they are halved.
    latent = (15, 21)
    shape = distilled.narrow_shape(name)
    with torch.device("meta"):
        unet = distilled.by_diffusers(name, shape.channels, shape.context_dim, shape.pooled_dim)
        added = {"text_embeds": torch.empty(1, shape.pooled_dim), "time_ids": torch.empty(1, 6)}
        inputs = torch.empty(1, 4, *latent), torch.empty(1), torch.empty(1, 77, shape.context_dim)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            unet(*inputs, added_cond_kwargs=added)
    assert unet_cost(shape, None, latent)[1] == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", DISTILLED)
def test_names_are_those_of_diffusers_own_converter(name: str, whole: dict[str, Shapes]) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    names = TOPOLOGIES[name].names
    ours = {names.to_ldm(k): k for k in whole[name]}
    assert len(ours) == len(whole[name])
    config = {"layers_per_block": names.resnets, "addition_embed_type": "text_time", "num_class_embeds": None}
    config |= {"class_embed_type": None}
    if TOPOLOGIES[name].middle < 2:
        # It asks for three modules in the middle, whatever the configuration says.
        ours = {k: v for k, v in ours.items() if not k.startswith("middle_block.")}
        ours |= {f"middle_block.{i}.none": "" for i in range(3)}
    theirs = convert_ldm_unet_checkpoint({f"model.diffusion_model.{k}": v for k, v in ours.items()}, config)
    theirs = {k: v for k, v in theirs.items() if v}
    assert {k: k for k in theirs} == theirs
    assert KeyMap.of(whole[name]) == names == KeyMap.of(names.to_ldm(k) for k in whole[name])


@pytest.mark.parametrize(
    ("name", "site", "block"),
    [
        ("ssd-1b", "down_blocks.0.downsamplers.0", 3),
        ("koala-700m", "conv_in", 0),
        ("koala-700m", "down_blocks.0.downsamplers.0", 2),
        ("koala-1b", "down_blocks.1.downsamplers.0", 4),
    ],
)
def test_where_guidance_comes_in(name: str, site: str, block: int) -> None:
    assert TOPOLOGIES[name].names.block_of_site(site) == ("input", block)


# -- recognition ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sdxl", *DISTILLED])
@pytest.mark.parametrize("ldm", [False, True], ids=["diffusers", "ldm"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_whole_file_is_recognised(name: str, ldm: bool, prefix: str, whole: dict[str, Shapes]) -> None:
    spell = TOPOLOGIES[name].names.to_ldm if ldm else str
    info = inspected({prefix + spell(k): v for k, v in whole[name].items()})
    assert info.shape == SHAPES[name]
    assert (info.plan.name, info.plan.topology, info.plan.removed) == ("full", name, 0)
    assert {info.diffusers(k): info.ldm(k) for k in info.keys} == {
        k: TOPOLOGIES[name].names.to_ldm(k) for k in whole[name]
    }


@settings(max_examples=40)
@given(st.sampled_from(SDXL_KIND), st.data())
def test_a_pruned_file_is_recognised_by_its_metadata_and_else_as_the_smallest(
    whole: dict[str, Shapes], topology: Any, data: Any
) -> None:
    stacks = {
        s: StackPlan(d, tuple(sorted(data.draw(st.sets(st.integers(0, d - 1)))))) for s, d in topology.depths.items()
    }
    plan = PrunePlan("drawn", topology.name, stacks)
    shapes = prune_state_dict(whole[topology.name], plan)
    if data.draw(st.booleans()):
        shapes = {topology.names.to_ldm(k): v for k, v in shapes.items()}
    for metadata in ({PLAN_KEY: json.dumps(plan.to_json())}, {MODEL_KEY: json.dumps({"topology": topology.name})}):
        info = inspected(shapes, metadata)
        assert info.shape.topology is topology
        assert {s: e.keep for s, e in info.plan.stacks.items()} == {s: e.keep for s, e in stacks.items()}
    holding = [
        t
        for t in SDXL_KIND
        if t.resnets == topology.resnets
        and t.depths.keys() == stacks.keys()
        and all(n < t.depths[s] for s, e in stacks.items() for n in e.keep)
    ]
    assert inspected(shapes).shape.topology is min(holding, key=lambda t: sum(t.depths.values()))


def test_our_metadata_tells_a_pruned_ssd_from_a_whole_vega(whole: dict[str, Shapes]) -> None:
    ssd, vega = TOPOLOGIES["ssd-1b"].depths, TOPOLOGIES["segmind-vega"].depths
    plan = PrunePlan("as vega", "ssd-1b", {s: StackPlan(d, tuple(range(vega[s]))) for s, d in ssd.items()})
    shapes = prune_state_dict(whole["ssd-1b"], plan)
    assert shapes == whole["segmind-vega"]
    assert inspected(shapes).shape.topology.name == "segmind-vega"
    info = inspected(shapes, {PLAN_KEY: json.dumps(plan.to_json())})
    assert (info.shape.topology.name, info.plan.name) == ("ssd-1b", "as vega")


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("ssd-1b", "sdxl", "is ssd-1b, but the plan in its metadata is for sdxl"),
        ("sdxl", "koala-1b", "is sdxl, but the plan in its metadata is for koala-1b"),
        ("koala-700m", "pgp-nano", "is koala-700m, but the plan in its metadata is for pgp-nano"),
        ("ssd-1b", "segmind-vega", "is ssd-1b, but the plan in its metadata is for segmind-vega"),
        ("sdxl", "sd-9", "pruned from sd-9, which this release does not know: update"),
    ],
)
def test_metadata_that_is_not_true_is_refused(name: str, said: str, message: str, whole: dict[str, Shapes]) -> None:
    with pytest.raises(CheckpointError, match=message):
        inspected(whole[name], {MODEL_KEY: json.dumps({"topology": said})})


def without(shapes: Shapes, *heads: str) -> Shapes:
    return {k: v for k, v in shapes.items() if not k.startswith(heads)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: without(w["sdxl"], "mid_block.attentions"),
            "not shaped as sdxl: it lacks .* mid_block",
        ),
        (
            lambda w: without(w["koala-1b"], "up_blocks.1.attentions.1."),
            "not shaped as koala-1b: it lacks .* up_blocks.1",
        ),
        (
            lambda w: w["ssd-1b"] | {"down_blocks.2.attentions.0.transformer_blocks.7.norm1.weight": (1280,)},
            "down_blocks.2.attentions.0 has block 7; ssd-1b has 4 blocks there",
        ),
        (
            lambda w: w["koala-700m"] | {"down_blocks.0.resnets.2.norm1.weight": (320,)},
            "3 residual blocks a level",
        ),
    ],
)
def test_what_is_none_of_them_is_said_of_the_nearest(change: Any, message: str, whole: dict[str, Shapes]) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        inspected(change(whole))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["sdxl", "ssd-1b"])
def test_a_latent_consistency_model_with_cfg_as_an_input_is_refused(name: str, whole: dict[str, Shapes]) -> None:
    """latent-consistency/lcm-sdxl and lcm-ssd-1b; fine-tunes with an LCM LoRA in them are plain UNets."""
    with pytest.raises(CheckpointError, match=r"takes CFG's scale as an input .* LCM LoRA"):
        inspected(whole[name] | {"time_embedding.cond_proj.weight": (320, 256)})


def test_the_name_of_a_topology_in_metadata_must_be_text(whole: dict[str, Shapes]) -> None:
    with pytest.raises(CheckpointError, match="topology is"):
        inspected(whole["sdxl"], {MODEL_KEY: '{"topology": ["sdxl"]}'})


# -- plans ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sdxl", *DISTILLED])
@pytest.mark.parametrize("other", ["sdxl", *DISTILLED])
def test_a_plan_for_another_topology_is_refused_with_both_names(
    name: str, other: str, whole: dict[str, Shapes]
) -> None:
    topology = TOPOLOGIES[other]
    # One block of each stack, which is in every topology that has the stack.
    plan = PrunePlan("mine", other, {s: StackPlan(d, (0,)) for s, d in topology.depths.items()})
    if name == other:
        assert inspected(whole[name], None, plan).plan.name == "mine"
        return
    with pytest.raises((CheckpointError, PlanError), match=f"plan mine is for {other}, x is {name}"):
        inspected(whole[name], None, plan)


def test_widths_are_the_file_s_own() -> None:
    for name in DISTILLED:
        shape = replace(distilled.narrow_shape(name), channels=(64, 128, 192), context_dim=48)
        with torch.device("meta"):
            assert inspected(shapes_of(build_unet(shape))).shape == shape
