"""What was distilled from SDXL in ComfyUI, narrow, against diffusers' UNets of the published configurations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distilled
import pytest
import rounding
import torch
from safetensors.torch import save_file

from pgp_core.conditioning.conditioning import Conditioning
from pgp_core.files.weights import WeightsFile, open_weights
from pgp_core.guidance.file import read_guidance
from pgp_core.guidance.fresh import fresh_spec
from pgp_core.guidance.module import KEY_PREFIX, METADATA_KEY, Guidance
from pgp_core.redundancy.report import MODULES
from pgp_core.sampling.denoiser import Denoiser
from pgp_core.sampling.euler import euler
from pgp_core.sampling.options import SampleOptions
from pgp_core.unet.core_loading import loads_in_core
from pgp_core.unet.inspect import inspect_unet
from pgp_core.unet.known import SHAPES, TOPOLOGIES
from pgp_core.unet.plan import PrunePlan, StackPlan
from pgp_core.unet.prune import prune_module, prune_state_dict
from pgp_core.unet.topology import split_block

from .diffusers_side import both
from .in_process import Checks, Driver

SECONDS = 500
NAMES = sorted(distilled.CONFIGS)
#: Those of whose cut files core's loader is asked.
CUT = ("koala-1b", "ssd-1b")
SIZES = (136.0, 104.0, 0.0, 0.0, 136.0, 104.0)


def _plan(name: str, keep: Callable[[str, int], tuple[int, ...]]) -> PrunePlan:
    return PrunePlan("cut", name, {s: StackPlan(d, keep(s, d)) for s, d in TOPOLOGIES[name].depths.items()})


def _sparse(name: str) -> PrunePlan:
    """Of each stack with more than one block the last and every other one before it; of the last stack none."""
    last = list(TOPOLOGIES[name].depths)[-1]
    return _plan(name, lambda s, d: () if s == last else tuple(range((d - 1) % 2, d, 2)))


def _cuts(name: str) -> dict[str, PrunePlan]:
    """What a file may lack, for core's own loader."""
    topology = TOPOLOGIES[name]
    all_of = {s: tuple(range(d)) for s, d in topology.depths.items()}
    decoder = [s for s in all_of if topology.stage(s) == "decoder"]

    def without(**of: tuple[int, ...]) -> PrunePlan:
        return _plan(name, lambda s, _: of.get(s, all_of[s]))

    return {
        "whole": without(),
        "decoder, end": without(**{s: all_of[s][:1] for s in decoder}),
        "decoder, beginning": without(**{decoder[0]: all_of[decoder[0]][1:]}),
        "decoder, a stack": without(**{decoder[-1]: ()}),
        "decoder, gap": without(**{decoder[0]: (0, all_of[decoder[0]][-1]) if len(all_of[decoder[0]]) > 2 else (0,)}),
        "encoder, end": without(**{"down_blocks.2.attentions.0": (0,)}),
        "bottleneck, end": without(**{"mid_block.attentions.0": (0, 1)}),
    }


def _ldm(name: str, plan: PrunePlan | None = None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the full-size UNet, from diffusers' of the published configuration."""
    with torch.device("meta"):
        found = {k: tuple(v.shape) for k, v in distilled.by_diffusers(name).state_dict().items()}
    found = prune_state_dict(found, plan) if plan else found
    return {TOPOLOGIES[name].names.to_ldm(k): v for k, v in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("distilled")
    files = out / "files"
    files.mkdir()
    asked = {}
    for name in NAMES:
        distilled.write(files, name)
        spec = dataclasses.replace(fresh_spec(64, base=name), trained=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            guidance = Guidance.fresh(spec)
            torch.nn.init.normal_(guidance.peam["0"].convs[-1].weight, std=0.05)  # type: ignore[index,union-attr]
        tensors = {KEY_PREFIX + k: v.contiguous() for k, v in guidance.state_dict().items()}
        save_file(tensors, files / f"{name}-guidance.safetensors", {METADATA_KEY: json.dumps(spec.to_json())})
        asked[name] = {"plan": _sparse(name).to_json(), "shapes": _ldm(name)}
        asked[name]["cut"] = {k: _ldm(name, p) for k, p in _cuts(name).items()} if name in CUT else {}
    (files / "asked.json").write_text(json.dumps(asked))
    return out


@pytest.fixture(scope="module")
def checks(driver: Driver, folder: Path) -> Checks:
    return driver.run(folder, SECONDS, "distilled")


@torch.inference_mode()
def _by_diffusers(name: str, folder: Path, tensors: dict[str, torch.Tensor], kind: str) -> Any:
    g = torch.Generator().manual_seed(1)
    prompt = Conditioning(torch.randn(1, 7, 32, generator=g), torch.randn(1, 32, generator=g), torch.tensor([SIZES]))

    def run(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        dtype, guide, features = tensors["image"].dtype, None, ()
        unet, options = distilled.narrow(name), SampleOptions(steps=4, cfg=1.0, seed=5)
        if kind == "pruned":
            prune_module(unet, _sparse(name))
        if kind == "guided":
            with open_weights(folder / "files" / f"{name}-guidance.safetensors") as file:
                spec, weights = read_guidance(file)
                guide = Guidance(spec, device="meta").load({k: v.clone() for k, v in weights.items()}).to(dtype).eval()
            features = guide.features(tensors["image"].movedim(-1, 1))
        denoiser = Denoiser(unet.to(dtype), guide, features, prompt, None, options)
        return euler(denoiser, torch.zeros_like(tensors["noise"]), "epsilon", options)

    return both(run, {k: tensors[k] for k in ("image", "noise")})


@pytest.mark.parametrize("kind", ["whole", "guided", "pruned"])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_same_on_both_backbones(
    name: str, kind: str, checks: Checks, folder: Path, measured: Callable[[str, float], None]
) -> None:
    tensors = checks.tensors("distilled")
    expected = _by_diffusers(name, folder, tensors, kind)
    # Core's latents on the wire are not scaled.
    difference = rounding.difference(tensors[f"{name}/{kind}"] * 0.13025, expected.exact)
    measured(f"{name}, {kind}, both backbones", difference)
    assert difference <= rounding.allowed(expected.rounded, expected.exact)
    assert kind == "whole" or rounding.difference(tensors[f"{name}/{kind}"], tensors[f"{name}/whole"]) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_on_a_file_on_a_model_and_saved_is_the_same(name: str, checks: Checks) -> None:
    result = checks["distilled"][name]
    for what in ("live is the file's", "base afterwards", "saved live: weights", "saved file: weights"):
        assert result[what], what
    # Where weights lie in a file decides by which kernels they are multiplied.
    assert max(result["saved live"], result["saved file"]) <= rounding.LATENT
    plan = _sparse(name)
    assert result["skipped"] == [plan.removed, sum(TOPOLOGIES[name].depths.values())]
    for kind in ("live", "file"):
        metadata = result[f"saved {kind}: metadata"]
        saved = PrunePlan.from_json(json.loads(metadata["pgp.plan"]))
        assert (saved.topology, saved.name) == (name, "cut")
        assert {s: e.keep for s, e in saved.stacks.items()} == {s: e.keep for s, e in plan.stacks.items()}
        assert json.loads(metadata["pgp.model"])["topology"] == metadata["modelspec.architecture"] == name


@pytest.mark.parametrize("name", NAMES)
def test_what_is_for_another_is_refused_with_both_names(name: str, checks: Checks) -> None:
    for check in ("distilled", "distilled_in_core"):
        other, kind, message = checks[check][name]["another's plan"]
        assert kind == "PlanError" and "\n" not in message
        assert f"for {other}" in message and f"is {name}" in message
    kind, message = checks["distilled"][name]["another's guidance"]
    assert kind == "GuidanceError"
    assert f"is for {other}, the MODEL is {name}" in message


@pytest.mark.parametrize("name", NAMES)
def test_it_is_recorded(name: str, checks: Checks) -> None:
    result = checks["distilled"][name]
    assert result["recording changes nothing"]
    report, topology = result["report"], TOPOLOGIES[name]
    assert report["topology"] == name
    assert report["blocks"] == {s: list(e.keep) for s, e in _sparse(name).stacks.items()}
    assert report["modules"] == sorted(set(MODULES) - ({"B_4"} if topology.middle == 0 else set()))
    unet = prune_module(distilled.narrow(name), _sparse(name))
    assert report["totals"]["params"] == sum(p.numel() for p in unet.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_guided_image_to_image_in_tiles(name: str, checks: Checks) -> None:
    tiles = checks["distilled"][name]["tiles"]
    assert tiles["finite"] and tiles["differ"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_core_knows_it_as_the_same(name: str, checks: Checks) -> None:
    result = checks["distilled_in_core"][name]
    assert result["config"] == distilled.IN_CORE[name]
    # What our loader builds is what core's own detection finds.
    assert result["differ"] == []
    names = TOPOLOGIES[name].names
    with torch.device("meta"):
        keys = list(distilled.by_diffusers(name).state_dict())
    assert {k: v for k, v in result["names"].items() if k in keys} == {k: names.to_ldm(k) for k in keys}
    assert result["LoRA lacks"] == []
    assert result["skipped"] == [_sparse(name).removed, sum(TOPOLOGIES[name].depths.values())]


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("cut", list(_cuts("koala-1b")))
def test_what_is_said_of_a_file_is_what_core_does(name: str, cut: str, checks: Checks) -> None:
    core = checks["distilled_in_core"][name]["read"][cut]
    plan = _cuts(name)[cut]
    shapes = _ldm(name, plan)
    metadata = {"pgp.model": json.dumps({"topology": name})}
    said = loads_in_core(inspect_unet(WeightsFile("x", shapes, frozenset(shapes), torch.zeros, metadata)))
    assert said.loads == (isinstance(core, list) and core[1:] == [0, 0])
    assert ("KeyError" in said.why) == (core == "KeyError")
    assert ("does not know SDXL" in said.why) == (core == "no match")


def test_the_plans_of_this_file_cut_something() -> None:
    for name in NAMES:
        with torch.device("meta"):
            keys = distilled.by_diffusers(name).state_dict()
        left = prune_state_dict(keys, _sparse(name))
        gone = {split_block(k) for k in keys.keys() - left.keys()}
        assert len(gone) == _sparse(name).removed > 3
        assert SHAPES[name].topology is TOPOLOGIES[name]
