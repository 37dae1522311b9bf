"""``plan build``, ``plan apply`` and ``export``: files in, files out, and the model that comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reports import drawn
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pgp_core.cli import main
from pgp_core.errors import CheckpointError
from pgp_core.files.weights import open_weights
from pgp_core.planner import by_count, coarse, dial
from pgp_core.unet.costs import unet_cost
from pgp_core.unet.inspect import inspect_unet
from pgp_core.unet.known import NANO, SDXL, SDXL_SHAPE
from pgp_core.unet.loading import load_unet
from pgp_core.unet.plan import PrunePlan, StackPlan, load_plan
from pgp_core.unet.prune import prune_module
from pgp_core.unet.topology import KeyMap

PLAN = "pgp-nano"
GAPPED = "up_blocks.0.attentions.1"


@pytest.fixture
def model(tmp_path: Path, narrow: Any) -> Path:
    """A narrow UNet of nano's kind inside a checkpoint, in half precision but for its norms."""
    names = KeyMap()
    weights = {
        f"model.diffusion_model.{names.to_ldm(k)}": v.clone() if "norm" in k else v.half()
        for k, v in narrow.state_dict().items()
    }
    save_file({**weights, "first_stage_model.x": torch.zeros(3)}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def narrow(nano_shape: Any) -> Any:
    from pgp_core.unet.on_diffusers import build_unet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_unet(nano_shape).eval()


@pytest.fixture
def nano_shape(shape: Any) -> Any:
    """As :func:`shape`, with nano's number of latent channels, by which files are told apart."""
    from dataclasses import replace

    return replace(shape, latent_channels=48)


@pytest.fixture
def call(nano_shape: Any) -> Callable[[Any], torch.Tensor]:
    @torch.no_grad()
    def call(unet: Any) -> torch.Tensor:
        g = torch.Generator().manual_seed(0)
        return unet(
            torch.randn(1, 48, 8, 8, generator=g),
            torch.full((1,), 501.0),
            encoder_hidden_states=torch.randn(1, 5, nano_shape.context_dim, generator=g),
            added_cond_kwargs={
                "text_embeds": torch.randn(1, nano_shape.pooled_dim, generator=g),
                "time_ids": torch.tensor([[512.0, 512.0, 0.0, 0.0, 512.0, 512.0]]),
            },
            return_dict=False,
        )[0]

    return call


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as f:
        return dict(f.metadata())


def error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("pgp-diffsr: error: ")
    return lines[0]


# -- apply --------------------------------------------------------------------------------------------------


def test_apply_writes_the_pruned_unet(
    model: Path, narrow: Any, call: Any, nano_shape: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "pruned.safetensors"
    assert main(["plan", "apply", str(model), PLAN, "-o", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["loads_in_core"] is False
    assert "ComfyUI's own Load Diffusion Model does not read this file" in captured.err
    assert said["output"] == str(out)
    assert said["bytes"] == out.stat().st_size
    plan, weights, source = load_plan(PLAN), load_file(out), load_file(model)
    pruned = prune_module(narrow, plan)
    names = KeyMap()
    assert set(weights) == {names.to_ldm(k) for k in pruned.state_dict()}
    for k, v in weights.items():
        old = source[f"model.diffusion_model.{k}"]
        assert v.dtype == old.dtype
        assert torch.equal(v, old)
    loaded = load_unet(nano_shape, plan, {k: v.float() for k, v in weights.items()})
    rounded = {
        k: v.float() if "norm" in k else v.half().float() for k, v in ((k, v) for k, v in pruned.state_dict().items())
    }
    pruned.load_state_dict(rounded)
    assert torch.equal(call(loaded), call(pruned))
    assert json.loads(metadata(out)["pgp.plan"])["stacks"] == plan.to_json()["stacks"]
    with open_weights(out) as file:
        assert inspect_unet(file).plan.name == PLAN
    # Again, from the pruned file, and by a plan that needs what is gone.
    again = tmp_path / "again.safetensors"
    assert main(["plan", "apply", str(out), PLAN, "-o", str(again)]) == 0
    assert {k: v.tolist() for k, v in load_file(again).items()} == {k: v.tolist() for k, v in weights.items()}
    capsys.readouterr()
    assert main(["plan", "apply", str(out), "pgp-nano-coarse", "-o", str(tmp_path / "no.safetensors")]) == 1
    gone = next(i for i in range(4) if i not in plan.stacks["up_blocks.0.attentions.0"].keep)
    assert f"keeps block {gone} of up_blocks.0.attentions.0" in error(capsys)


def test_apply_refuses(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = model.read_bytes()
    assert main(["plan", "apply", str(model), PLAN, "-o", str(model)]) == 1
    assert "there already" in error(capsys)
    assert main(["plan", "apply", str(model), PLAN, "-o", str(tmp_path / "x.bin")]) == 1
    assert ".safetensors" in error(capsys)
    assert main(["plan", "apply", str(model), "pgp-sdxl", "-o", str(tmp_path / "x.safetensors")]) == 1
    assert "pgp-sdxl is for sdxl" in error(capsys)
    assert main(["plan", "apply", str(tmp_path / "no.safetensors"), PLAN, "-o", str(tmp_path / "x.safetensors")]) == 1
    assert "no file" in error(capsys)
    weights = load_file(model)
    del weights["model.diffusion_model.output_blocks.8.0.in_layers.2.weight"]
    save_file(weights, tmp_path / "torn.safetensors")
    assert main(["plan", "apply", str(tmp_path / "torn.safetensors"), PLAN, "-o", str(tmp_path / "x.safetensors")]) == 1
    assert "lacks up_blocks.2.resnets.2.conv1.weight" in error(capsys)
    assert model.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "torn.safetensors"]


def test_apply_keeps_how_the_model_predicts(narrow: Any, tmp_path: Path) -> None:
    names = KeyMap()
    weights = {names.to_ldm(k): v.double() for k, v in narrow.state_dict().items()}
    save_file({**weights, "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, tmp_path / "v.safetensors")
    out = tmp_path / "out.safetensors"
    assert main(["plan", "apply", str(tmp_path / "v.safetensors"), PLAN, "-o", str(out)]) == 0
    with open_weights(out) as file:
        info = inspect_unet(file)
    assert (info.prediction, info.zero_snr) == ("v_prediction", True)
    assert load_file(out)["out.2.weight"].dtype == torch.float64


# -- export -------------------------------------------------------------------------------------------------


def test_renumbered_blocks_are_dense_and_the_model_is_the_same(
    model: Path, narrow: Any, call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pruned, dense, file = (tmp_path / name for name in ("pruned.safetensors", "dense.safetensors", "gaps.json"))
    preset = load_plan(PLAN)
    gaps = PrunePlan("gaps", preset.topology, {**preset.stacks, GAPPED: StackPlan(4, (0, 3))}, {})
    file.write_text(gaps.dumps(), encoding="utf-8")
    assert main(["plan", "apply", str(model), str(file), "-o", str(pruned)]) == 0
    capsys.readouterr()
    assert main(["export", str(pruned), "-o", str(dense), "--renumber", "--json"]) == 0
    depths = {s: len(e.keep) for s, e in gaps.stacks.items()}
    captured = capsys.readouterr()
    assert json.loads(captured.out)["depths"] == depths
    assert json.loads(captured.out)["loads_in_core"] is False
    assert "In ComfyUI use the file that it was made from" in captured.err
    about = json.loads(metadata(dense)["pgp.renumbered"])
    assert about["depths"] == depths
    assert about["numbers"][GAPPED] == [0, 3]
    assert "pgp.plan" not in metadata(dense)
    # A model whose lists of blocks are dense, as other tools build it.
    prune_module(narrow, gaps)
    with torch.no_grad():
        for k, v in narrow.state_dict().items():
            v.copy_(v if "norm" in k else v.half())
    expected = call(narrow)
    for stack in depths:
        parent = narrow.get_submodule(stack)
        parent.transformer_blocks = torch.nn.ModuleList(list(parent.transformer_blocks))
    names = KeyMap()
    narrow.load_state_dict({names.to_diffusers(k): torch.randn_like(v.float()) for k, v in load_file(dense).items()})
    assert not torch.equal(call(narrow), expected)
    narrow.load_state_dict({names.to_diffusers(k): v.float() for k, v in load_file(dense).items()})
    assert torch.equal(call(narrow), expected)


def test_a_renumbered_file_is_not_read_as_if_its_numbers_were_original(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = tmp_path / "dense.safetensors"
    assert main(["export", str(model), "-o", str(dense), "--renumber"]) == 0
    with open_weights(dense) as file, pytest.raises(CheckpointError, match=r"renumbered.*use the file"):
        inspect_unet(file)
    capsys.readouterr()
    assert main(["plan", "apply", str(dense), PLAN, "-o", str(tmp_path / "x.safetensors")]) == 1
    assert "renumbered" in error(capsys)
    assert main(["export", str(model), "-o", str(dense), "--renumber"]) == 1
    assert "there already" in error(capsys)


def test_an_export_keeps_the_blocks_original_numbers_unless_asked(
    narrow: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, names = load_plan(PLAN), KeyMap()
    gaps = PrunePlan("gaps", plan.topology, {**plan.stacks, GAPPED: StackPlan(4, (0, 3))}, {})
    weights = {k: v.half() for k, v in prune_module(narrow, gaps).state_dict().items()}
    source, out = tmp_path / "diffusion_pytorch_model.safetensors", tmp_path / "out.safetensors"
    save_file(weights, source, {"pgp.plan": json.dumps(gaps.to_json())})
    assert main(["export", str(source), "-o", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert (said["renumbered"], said["loads_in_core"], said["depths"][GAPPED]) == (False, False, 2)
    assert "In ComfyUI use Load PGP-DiffSR Model" in captured.err
    written = load_file(out)
    assert set(written) == {names.to_ldm(k) for k in weights}
    assert all(torch.equal(v, weights[names.to_diffusers(k)]) for k, v in written.items())
    assert PrunePlan.from_json(json.loads(metadata(out)["pgp.plan"])) == gaps
    assert "pgp.renumbered" not in metadata(out)
    with open_weights(out) as file:
        assert inspect_unet(file).plan.blocks[GAPPED] == (0, 3)


# -- build --------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    drawn(SDXL, 7).save(tmp_path / "report.json")
    return tmp_path / "report.json"


def build(path: Path, *arguments: object) -> int:
    return main(["plan", "build", "-o", str(path), *map(str, arguments)])


def test_build_makes_the_planner_s_plans(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = drawn(SDXL, 7)
    base = coarse(measured, SDXL)
    cases: list[tuple[PrunePlan, list[object]]] = [
        (base, ["--method", "coarse"]),
        (by_count(base, measured, 4), ["--method", "fine", "--count", 4]),
        (
            by_count(PrunePlan.full(SDXL), measured, {"mid_block.attentions.0": 2}),
            ["--method", "fine", "--base", "full", "--count", "mid_block.attentions.0=2"],
        ),
        (dial(measured, 0.5, name="half"), ["--method", "dial", "--amount", 0.5, "--name", "half"]),
        (dial(measured, 0.5, ("bottleneck",)), ["--method", "dial", "--amount", 0.5, "--stage", "bottleneck"]),
    ]
    for i, (expected, arguments) in enumerate(cases):
        out = tmp_path / f"{i}.json"
        assert build(out, "--report", saved, "--json", *arguments) == 0
        said = json.loads(capsys.readouterr().out)
        plan = load_plan(out)
        assert plan == expected
        params, macs, _ = unet_cost(SDXL_SHAPE, {s: e.keep for s, e in plan.stacks.items()})
        assert (said["params"], said["macs"]) == (params, macs)
        assert (said["name"], said["removed"]) == (plan.name, plan.removed)
        assert said["stacks"] == plan.to_json()["stacks"]


def test_build_by_thresholds_and_budget(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"
    assert build(out, "--report", saved, "--method", "fine", "--max-params", 1_000_000_000, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert 900_000_000 < said["params"] <= 1_000_000_000
    assert build(out, "--report", saved, "--method", "fine", "--tau-cos", 0.5, "--tau-kl", 3, "--overwrite") == 0
    assert load_plan(out).provenance["thresholds"] == {"tau_cos": 0.5, "tau_kl": 3.0}
    assert build(out, "--report", saved, "--method", "fine", "--overwrite", "--base", "pgp-sdxl-coarse") == 0
    assert load_plan(out).provenance["thresholds"] == {"tau_cos": 0.2, "tau_kl": 1.0}
    # The drawn scores are all beyond the paper's thresholds: by its literal text everything would go.
    capsys.readouterr()
    assert build(tmp_path / "no.json", "--report", saved, "--method", "fine", "--literal") == 1
    assert "up_blocks" in error(capsys)


def test_build_without_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"
    assert build(out, "--method", "coarse", "--coarse-keep", "first", "--topology", "pgp-nano", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert "params" not in said
    assert said["removed"] == load_plan("pgp-nano-coarse").removed
    assert build(out, "--method", "coarse", "--coarse-keep", "first") == 1
    assert "there already" in error(capsys)
    assert load_plan(out).topology == NANO.name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "fine"], "--report"),
        (["--method", "coarse"], "there is none"),
        (["--method", "dial", "--amount", "0.5", "--report", "no.json"], "no.json"),
        (["--method", "dial", "--amount", "2", "--report", "REPORT"], "0 to 1, not 2"),
        (["--method", "fine", "--report", "REPORT", "--topology", "pgp-nano"], "of sdxl"),
        (["--method", "dial", "--amount", "0.5", "--report", "REPORT", "--topology", "pgp-nano"], "of sdxl"),
        (["--method", "fine", "--report", "REPORT", "--base", "pgp-nano"], "of sdxl"),
        (["--method", "fine", "--report", "REPORT", "--max-params", "5"], "smallest possible"),
        (["--method", "fine", "--report", "REPORT", "--max-macs", "5"], "smallest possible"),
        (["--method", "coarse", "--report", "REPORT", "--name", "../x"], "../x"),
    ],
)
def test_build_s_mistakes_are_one_line(
    arguments: list[str], words: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    assert build(out, *(str(saved) if a == "REPORT" else a for a in arguments)) == 1
    assert words in error(capsys)
    assert not out.exists()


def test_build_writes_json_only(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(tmp_path / "plan.txt", "--report", saved, "--method", "coarse") == 1
    assert ".json" in error(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--method", "dial"],
        ["--method", "coarse", "--count", "4"],
        ["--method", "dial", "--amount", "1", "--literal"],
        ["--method", "fine", "--count", "4", "--max-params", "5"],
        ["--method", "fine", "--count", "4", "--literal"],
        ["--method", "fine", "--count", "four"],
        ["--method", "fine", "--count", "4", "--count", "5"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], saved: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        build(tmp_path / "plan.json", "--report", saved, *arguments)
    assert stop.value.code == 2
