"""Distillation from the command line: the LoRA goes on from stage to stage, or a second one stands beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pgp_core.cli import main
from pgp_core.errors import CheckpointError, ConfigError
from pgp_core.files.checkpoints import read_safetensors
from pgp_core.restorers.nano import model as nano
from pgp_core.training.building import inspect, select
from pgp_core.training.config import RunConfig, load_config
from pgp_core.training.distillation import make_loss
from pgp_core.training.lora_layers import add_lora, load_lora
from pgp_core.training.nano import run_stage
from pgp_core.training.painting import paint_set
from pgp_core.unet import lora

pytest.importorskip("peft")

SMALL = [
    *("run.steps=1", "run.device=cpu", "run.precision=float32", "data.pictures=2", "data.size=128", "data.batch=1"),
    *("data.patch=32", "data.workers=0", "optimizer.warmup=0"),
]
S1 = ["model.base=regress", "model.plan=", "model.guidance=base", "model.lora_rank=2", "s1.score_model=regress"]
STAGE_2 = ["s1.stage=2", "s1.perceptual=0", "s1.csd=0.1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and stage 1, each of one step."""
    folder = tmp_path_factory.mktemp("runs")
    paint_set(str(folder / "pictures.npy"), 2, seed=0, size=128)
    run_stage("regress", folder, SMALL, progress=False)
    run_stage("s1", folder, [*SMALL, *S1], progress=False)
    return folder


def config(runs: Path, name: str, *changes: str) -> RunConfig:
    return load_config(Path("nano-s1"), [f"run.folder={runs / name}", *SMALL, *S1, *changes])


def loaded(settings: RunConfig) -> torch.nn.Module:
    subject = inspect(settings, str).load(torch.device("cpu"))
    select(subject, settings)
    return subject


def test_stage_1_starts_by_shrinking_the_input(runs: Path) -> None:
    unet = loaded(config(runs, "x")).unet
    base, _ = read_safetensors(runs / "regress" / "model.safetensors")
    up, down = (unet.get_submodule(f"conv_in.lora_{k}.default").weight.flatten(1) for k in "BA")
    before = base["unet.conv_in.weight"].flatten(1)
    torch.testing.assert_close(before + up @ down, nano.S1_INPUT * before, atol=1e-6, rtol=0)


def test_stage_2_goes_on_with_the_lora_of_stage_1(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = read_safetensors(runs / "s1" / "model.safetensors")
    subject = loaded(config(runs, "x", *STAGE_2, "s1.first_lora=s1"))
    own = {k: v for k, v in subject.state_dict().items() if ".lora_" in k}
    assert own.keys() == first.keys()
    assert all(torch.equal(own[k], first[k]) for k in first)
    over = [*SMALL, *S1, *STAGE_2, "s1.first_lora=s1", f"run.folder={runs / 's1-2'}"]
    assert main(["train", "distill", "nano-s1", "--json", *(a for o in over for a in ("--set", o))]) == 0
    figures = json.loads(capsys.readouterr().out)
    second, _ = read_safetensors(runs / "s1-2" / "model.safetensors")
    assert second.keys() == first.keys()
    assert not all(torch.equal(second[k], first[k]) for k in first)
    assert figures["trainable"] == sum(v.numel() for v in first.values())


def test_a_second_lora_stands_beside_the_first(runs: Path) -> None:
    settings = config(runs, "x", *STAGE_2, "s1.first_lora=s1", "s1.second_lora=true")
    unet = loaded(settings).unet
    first, _ = read_safetensors(runs / "s1" / "model.safetensors")
    base, _ = read_safetensors(runs / "regress" / "model.safetensors")
    key = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    delta = first[f"unet.{key}.lora_B.default.weight"] @ first[f"unet.{key}.lora_A.default.weight"]
    layer = unet.get_submodule(key)
    torch.testing.assert_close(layer.base_layer.weight, base[f"unet.{key}.weight"] + delta)
    assert layer.lora_B.default.weight.abs().max() == 0, "its own begins with nothing"
    assert layer.lora_B.default.weight.requires_grad
    assert not layer.base_layer.weight.requires_grad


def test_the_score_model_is_another_one_and_frozen(runs: Path) -> None:
    settings = config(runs, "x", *STAGE_2)
    subject = loaded(settings)
    loss = make_loss(settings, subject, str)
    assert loss.csd is not None
    assert loss.csd.score.unet is not subject.unet
    assert not any(p.requires_grad for p in loss.parameters())
    assert not any(".lora_" in n for n, _ in loss.named_parameters())
    assert make_loss(config(runs, "x"), subject, str).csd is None, "stage 1 asks none"


def test_a_lora_of_another_rank_cannot_go_on(runs: Path) -> None:
    with pytest.raises(CheckpointError, match="another rank"):
        loaded(config(runs, "x", *STAGE_2, "s1.first_lora=s1", "model.lora_rank=3"))


def test_what_is_missing_is_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"s1\.first_lora is missing"):
        config(runs, "x", "s1.second_lora=true")
    for change, words in (("s1.first_lora=nothing", "s1.first_lora"), ("s1.score_model=nothing", "score model of csd")):
        over = [*SMALL, *S1, *STAGE_2, f"run.folder={runs / 'y'}", change]
        assert main(["train", "distill", "nano-s1", *(a for o in over for a in ("--set", o))]) == 1
        assert words in capsys.readouterr().err


@torch.no_grad()
def test_a_lora_with_an_alpha_keeps_its_scale(runs: Path) -> None:
    """Continued at scale 1, it is what it was merged."""
    unet = inspect(config(runs, "x"), str).load(torch.device("cpu")).unet
    twin = inspect(config(runs, "x"), str).load(torch.device("cpu")).unet
    key = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    add_lora(unet, 2)
    weights = {
        k: torch.randn(v.shape, generator=torch.Generator().manual_seed(i)) if ".lora_" in k else v
        for i, (k, v) in enumerate(unet.state_dict().items())
    }
    file = lora.from_peft({k: v for k, v in weights.items() if ".lora_" in k}, alpha=6.0)
    load_lora(unet, file, "file")
    lora.merge(twin, file)
    layer = unet.get_submodule(key)
    merged = layer.base_layer.weight + layer.lora_B.default.weight @ layer.lora_A.default.weight
    torch.testing.assert_close(merged, twin.get_submodule(key).weight, atol=1e-5, rtol=1e-4)


def test_a_lora_goes_on_against_discriminators(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The configuration that ships, on tiny crops: dry, then 12 steps."""
    folder = runs / "adversarial"
    short = ["run.steps=12", "run.log_every=4", "adversarial.alone=2", "adversarial.ramp=2", "optimizer.warmup=2"]
    over = [*SMALL, *S1[:-1], *short, "s1.first_lora=s1", f"run.folder={folder}"]
    command = ["train", "distill", "nano-adversarial", "--json", *(a for o in over for a in ("--set", o))]
    assert main([*command, "--dry-run"]) == 0
    found = json.loads(capsys.readouterr().out)
    heads = sum(c * 64 + 64 + 9 * 64 * 64 + 64 + 9 * 64 + 1 for c in (96, 144, 240, 480))
    # First, twice down and twice up, smooth, last: of 24 channels (six, unshuffled by 2), with width 32.
    pixels = 9 * 24 * 32 + 32 + 16 * 32 * 64 + 16 * 64 * 128 + 9 * 128 * 64 + 9 * 64 * 32 + 9 * 32 * 32 + 9 * 32 * 4 + 4
    assert found["discriminator_params"] == heads + pixels
    assert 16 * (heads + pixels) < found["memory"]["discriminator"] < 16 * (heads + pixels) + 4 * 1_000_000
    assert found["memory_bytes"] == sum(found["memory"].values())

    assert main(command) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["steps"], figures["skipped"], figures["files"]) == (12, 0, ["model.safetensors"])
    before, _ = read_safetensors(runs / "s1" / "model.safetensors")
    after, _ = read_safetensors(folder / "model.safetensors")
    assert after.keys() == before.keys() and not all(torch.equal(after[k], before[k]) for k in before)
    last = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()][-1]["terms"]
    assert last["weight_heads"] == pytest.approx(0.35 * last["pull_others"] / last["pull_heads"], rel=1e-5)
    assert last["discriminator_pixels"] < 2, "it tells them apart"
