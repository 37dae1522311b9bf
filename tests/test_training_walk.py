"""A user's way from a folder of pictures to a model that works in one step, by the command line alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rounding
import sdxl_files
import torch
import trained_runs
from PIL import Image

from pgp_core.cli import main
from pgp_core.files.checkpoints import read_safetensors
from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.family import ONCE
from pgp_core.restorers.sdxl.restorer import SDXLRestorer
from pgp_core.training.building import inspect
from pgp_core.training.config import load_config
from pgp_core.training.distillation import make_loss
from pgp_core.training.lora_layers import add_lora, load_lora
from pgp_core.training.sources import make_source
from pgp_core.training.strips import restore
from pgp_core.training.subject import Batch

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_runs.make(tmp_path_factory.mktemp("walk") / "files")


def upscaled(made: Path, out: Path, *options: str) -> np.ndarray:
    """Of a 16 x 12 picture, twice as large."""
    small = made / "small.png"
    Image.open(made / "pictures" / "0.png").resize((16, 12)).save(small)
    runs = made / "runs"
    files = ["--model", runs / "finetune" / "unet.safetensors", "--guidance", runs / "finetune/guidance.safetensors"]
    words = [*files, "--sdxl", made / "sdxl", "--prompt", "a picture", "--scale", "2", *options, "--device", "cpu"]
    assert main(["upscale", str(small), "-o", str(out), *map(str, words)]) == 0
    return np.asarray(Image.open(out / "small.png")).astype(float)


def test_upscale_takes_what_was_trained(made: Path, tmp_path: Path) -> None:
    runs = made / "runs"
    steps = ["--steps", "2", "--cfg", "2", "--color-fix", "none"]
    plain = upscaled(made, tmp_path / "plain", *steps)
    assert plain.shape == (24, 32, 3)
    healed = upscaled(made, tmp_path / "healed", *steps, "--lora", str(runs / "heal" / "lora.safetensors"))
    assert np.abs(healed - plain).max() > 1
    once = ["--one-step", "--color-fix", "none", "--lora"]
    one, two = (
        upscaled(made, tmp_path / name, *once, str(runs / name / "lora.safetensors"))
        for name in ("distill", "distill-2")
    )
    assert np.abs(one - two).max() > 1, "stage 2 went on"


def test_one_step_is_what_training_saw(made: Path) -> None:
    """The model put together by training's parts against the one that the files make."""
    runs = made / "runs"
    subject = inspect(load_config(made / "distill-2.toml"), str).load(torch.device("cpu"))
    weights, metadata = read_safetensors(runs / "distill-2" / "lora.safetensors")
    assert json.loads(metadata["pgp.s1"]) | {"plan_sha256": ""} == {
        "timestep": 1, "rank": 4, "topology": "sdxl", "plan_sha256": "",
    }  # fmt: skip
    add_lora(subject.unet, 4)  # type: ignore[arg-type]
    load_lora(subject.unet, weights, "lora")  # type: ignore[arg-type]
    lq = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    size = torch.tensor([[64, 48]] * 2)
    trained = restore(subject, Batch(lq, lq, ("a cat", "a cat"), size, torch.zeros(2, 2)), ONCE)
    files = Given(
        runs / "finetune" / "unet.safetensors",
        made / "sdxl",
        runs / "finetune" / "guidance.safetensors",
        loras=(runs / "distill-2" / "lora.safetensors",),
        prompt="a cat",
        one_step=True,
    )
    result = SDXLRestorer.load(files).restore(lq)
    # Encoder, UNet and decoder: three networks in a row.
    rounding.assert_same(result, trained, 3 * rounding.NETWORK)
    without = SDXLRestorer.load(files)
    assert without.guidance is not None
    without.guidance.peam["0"].reset_identity()
    assert (without.restore(lq) - result).abs().max() > 1e-3, "PEAM takes part"


def test_sample_pictures_show_crops_that_are_not_trained_on(made: Path) -> None:
    source = make_source(load_config(made / "finetune.toml"))
    shown = source.first(3)
    trained = [batch.lq[0] for batch in source(range(24))]
    assert len(trained) == 24
    assert not any(torch.equal(x, y) for x in shown.lq for y in trained)
    assert torch.equal(shown.lq, source.first(3).lq), "the same ones every time"


def test_csd_asks_sdxl_s_own_unet(made: Path) -> None:
    """Not the pruned base, where no score model is named."""
    config = load_config(made / "distill-2.toml")
    subject = inspect(config, str).load(torch.device("cpu"))
    loss = make_loss(config, subject, str)
    assert loss.csd is not None
    score = loss.csd.score.unet.state_dict()
    own = sdxl_files.unet_weights()
    assert score.keys() == own.keys(), "all blocks"
    assert all(torch.equal(score[k], own[k]) for k in own)


def test_a_dry_run_says_what_s1_lacks(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    over = ["s1.first_lora=none-such", "s1.score_model=no.safetensors", "s1.measure=lpips", "s1.vgg=no.pth"]
    command = ["train", "distill", str(made / "distill-2.toml"), *(a for o in over for a in ("--set", o))]
    assert main([*command, "--dry-run", "--json"]) == 0
    told = capsys.readouterr()
    missing = json.loads(told.out)["missing"]
    assert missing == [str(made / "runs" / "none-such" / "lora.safetensors"), "no.safetensors", "no.pth"]
    assert told.err.count("is not there yet") == 3
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "vgg16" in line


def test_a_picture_that_turns_out_broken_is_named_and_counted(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = made / "pictures" / "5.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    try:
        over = ["run.folder=" + str(made / "runs" / "broken"), "run.steps=4"]
        command = ["train", "finetune", str(made / "heal.toml"), *(a for o in over for a in ("--set", o))]
        assert main(command) == 0
    finally:
        broken.write_bytes(whole)
    told = capsys.readouterr().err
    assert "6 pictures in" in told
    assert "5 pictures in" in told
    assert "skipped, broken: 5.png" in told


def test_sdxl_s_lora_goes_on_against_discriminators(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps, the second with the model; the second pass needs SDXL's sizes anew."""
    folder = made / "runs" / "adversarial"
    over = [f"run.folder={folder}", "s1.csd=0", "s1.perceptual=0", "s1.l1=1", "s1.shifted=1", "run.log_every=1"]
    over += ["run.steps=3", "adversarial.alone=1", "adversarial.ramp=0", "adversarial.width=4", "data.accumulation=1"]
    command = ["train", "distill", str(made / "distill-2.toml"), "--json", *(a for o in over for a in ("--set", o))]
    assert main(command) == 0
    first, second = (read_safetensors(path / "lora.safetensors")[0] for path in (made / "runs" / "distill", folder))
    assert first.keys() == second.keys() and not all(torch.equal(first[k], second[k]) for k in first)
    row = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()][-1]
    # In the model's first step no pull is known.
    assert {"l1", "shifted", "adversarial_heads", "pull_pixels"} <= row["terms"].keys()
    assert row["terms"]["weight_heads"] > 0
