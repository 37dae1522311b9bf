"""What was distilled from SDXL on the command line: restored in few steps and in tiles, recorded, planned, pruned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import distilled
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sdxl_scene import Everything, peam_file, picture

from pgp_core.cli import main
from pgp_core.errors import GuidanceError
from pgp_core.files.weights import open_weights
from pgp_core.guidance.file import read_guidance
from pgp_core.redundancy.report import MODULES, load_report
from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.restorer import SDXLRestorer
from pgp_core.sampling.options import SampleOptions
from pgp_core.unet.inspect import inspect_unet
from pgp_core.unet.known import TOPOLOGIES
from pgp_core.unet.plan import PrunePlan, StackPlan, load_plan

NAMES = sorted(distilled.CONFIGS)
#: As the cards of Turbo, Lightning, LCM and DMD2 say: few steps, no CFG.
FEW = ["--steps=4", "--cfg=1"]


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str, files: Everything) -> Path:
    path = files.root / f"{name}.safetensors"
    return path if path.exists() else distilled.write(files.root, name)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = (picture(1, 29, 37)[0] * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def upscaled(photo: Path, files: Everything, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    """The result's pixels, and the row that was printed."""
    arguments = ["upscale", str(photo), "-o", str(photo.parent / "out"), "--scale=2", "--json", "--overwrite"]
    status = main([*arguments, "--sdxl", str(files.checkpoint), "--conditioning", str(files.positive), *FEW, *options])
    row = json.loads(capsys.readouterr().out)
    assert status == 0
    return np.array(Image.open(row["output"])).astype(int), row


def test_image_to_image_in_tiles(
    name: str, model: Path, files: Everything, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, row = upscaled(photo, files, capsys, "--model", str(model), "--tile=64", "--overlap=32")
    assert pixels.shape == (58, 74, 3) and row["model"] == name and row["steps"] == 4
    whole, _ = upscaled(photo, files, capsys, "--model", str(model), "--tile=0")
    # Neither the whole's own result nor another picture.
    assert 0 < np.abs(pixels - whole).mean() < 64


def test_recorded_planned_pruned_and_used(
    name: str, model: Path, files: Everything, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_file, plan_file = tmp_path / "report.json", tmp_path / "plan.json"
    analyze = ["analyze", "--images", str(photo), "-o", str(report_file), "--scale=1", "--model", str(model), *FEW]
    assert main([*analyze, "--sdxl", str(files.checkpoint), "--conditioning", str(files.positive)]) == 0
    report, topology = load_report(report_file), TOPOLOGIES[name]
    assert report.topology == name
    assert {s: len(b) for s, b in report.blocks.items()} == topology.depths
    assert set(report.modules) == set(MODULES) - ({"B_4"} if topology.middle == 0 else set())
    count = sum(p.numel() for p in distilled.narrow(name).parameters())
    assert report.totals["params"] == count

    build = ["plan", "build", "--report", str(report_file), "--model", str(model), "-o", str(plan_file)]
    assert main([*build, "--method=dial", "--amount=0.6"]) == 0
    plan = load_plan(plan_file)
    assert plan.topology == name and plan.removed > 0
    assert main(["plan", "show", str(plan_file)]) == 0

    pruned = tmp_path / "pruned.safetensors"
    assert main(["plan", "apply", str(model), str(plan_file), "-o", str(pruned)]) == 0
    with open_weights(pruned) as file:
        info = inspect_unet(file)
    assert (info.plan.topology, info.plan.name, info.plan.removed) == (name, plan.name, plan.removed)
    capsys.readouterr()
    by_file, row = upscaled(photo, files, capsys, "--model", str(pruned))
    by_plan, _ = upscaled(photo, files, capsys, "--model", str(model), "--plan", str(plan_file))
    assert (by_file == by_plan).all() and row["model"] == plan.name
    # Recording a pruned file says what it was pruned from.
    again = ["analyze", "--images", str(photo), "-o", str(tmp_path / "again.json"), "--scale=1", "--model", str(pruned)]
    assert main([*again, *FEW, "--sdxl", str(files.checkpoint), "--conditioning", str(files.positive)]) == 0
    assert load_report(tmp_path / "again.json").topology == name


def test_a_plan_for_sdxl_is_refused_with_both_names(
    name: str, model: Path, files: Everything, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["upscale", str(photo), "-o", str(photo.parent / "out"), "--model", str(model), "--plan=pgp-sdxl"]
    assert main([*arguments, "--sdxl", str(files.checkpoint), "--conditioning", str(files.positive), *FEW]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"plan pgp-sdxl is for sdxl, {model.name} is {name}" in line


def test_guidance_is_made_for_it_and_another_s_is_refused(
    name: str, model: Path, files: Everything, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = tmp_path / "fresh.safetensors"
    assert main(["guidance", "init", "-o", str(fresh), "--model", str(model)]) == 0
    with open_weights(fresh) as file:
        assert read_guidance(file)[0].base == name
    rest: Any = {"model": model, "base": files.sdxl, **files.saved}
    guided = SDXLRestorer.load(Given(guidance=fresh, **rest), say=str)
    plain = SDXLRestorer.load(Given(**rest), say=str)
    options = SampleOptions(steps=2, cfg=2.0, seed=1, start="noise")
    assert torch.equal(guided.restore(picture(), options), plain.restore(picture(), options))
    with pytest.raises(GuidanceError, match=f"guides sdxl, not {name}"):
        SDXLRestorer.load(Given(guidance=peam_file(tmp_path / "sdxl.safetensors"), **rest), say=str)


@pytest.mark.parametrize("ldm", [False, True], ids=["diffusers", "ldm"])
def test_a_lora_lands_on_the_same_layers_in_either_naming(ldm: bool, files: Everything, tmp_path: Path) -> None:
    """KOALA's blocks have other numbers in LDM's scheme than SDXL's."""
    model, names = tmp_path / "koala-1b.safetensors", TOPOLOGIES["koala-1b"].names
    distilled.write(tmp_path, "koala-1b")
    weights, g, tensors = load_file(model), torch.Generator().manual_seed(2), {}
    modules = ["down_blocks.2.attentions.0.transformer_blocks.5.attn2.to_k", "up_blocks.0.resnets.1.conv1"]
    changed = {}
    for module in modules:
        shape = weights[f"{module}.weight"].shape
        down, up = torch.randn(2, *shape[1:], generator=g), torch.randn(shape[0], 2, generator=g)
        stem = "lora_unet_" + (names.to_ldm(module) if ldm else module).replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.alpha": torch.tensor(2.0)}
        tensors[f"{stem}.lora_up.weight"] = up[..., None, None] if len(shape) == 4 else up
        changed[f"{module}.weight"] = weights[f"{module}.weight"] + torch.einsum("or,r...->o...", up, down)
    save_file(tensors, tmp_path / "lora.safetensors")
    rest: Any = {"model": model, "base": files.sdxl, **files.saved}
    said: list[str] = []
    unet = SDXLRestorer.load(Given(loras=(tmp_path / "lora.safetensors",), **rest), say=said.append).unet
    assert not any("left out" in line for line in said)
    for key, value in unet.state_dict().items():
        torch.testing.assert_close(value, changed.get(key, weights[key]))


def test_a_pruned_ssd_that_looks_like_vega_stays_ssd(files: Everything, tmp_path: Path) -> None:
    model, pruned = distilled.write(tmp_path, "ssd-1b"), tmp_path / "pruned.safetensors"
    ssd, vega = TOPOLOGIES["ssd-1b"].depths, TOPOLOGIES["segmind-vega"].depths
    plan = PrunePlan("small", "ssd-1b", {s: StackPlan(d, tuple(range(vega[s]))) for s, d in ssd.items()})
    (tmp_path / "small.json").write_text(plan.dumps())
    assert main(["plan", "apply", str(model), str(tmp_path / "small.json"), "-o", str(pruned)]) == 0
    with open_weights(pruned) as file:
        info = inspect_unet(file)
        stripped = inspect_unet(replace(file, metadata={}))
    assert (info.shape.topology.name, stripped.shape.topology.name) == ("ssd-1b", "segmind-vega")
