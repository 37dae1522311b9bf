"""``--dry-run``: counts by hand, for the model of the paper and for nano."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pgp_core.cli import main
from pgp_core.training.building import empty, inspect, select
from pgp_core.training.config import load_config
from pgp_core.training.diffusion_loss import DiffusionLoss
from pgp_core.training.memory import activations
from pgp_core.training.subject import Batch

#: The paper's UNet, 983.44 M, PEAM at 320 channels, and the first level of T2I-Adapter-XL's adapter.
UNET, PEAM, ADAPTER = 983_440_644, 1_107_264, 4_261_440
ALL = UNET + PEAM + ADAPTER
#: AutoencoderKL of SDXL; CLIP-L and OpenCLIP bigG.
VAE, TEXT = 83_653_863, 123_060_480 + 694_659_840


def preview(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["train", *args, "--dry-run", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_the_paper_s_model_on_a_card_of_24_gb(capsys: pytest.CaptureFixture[str]) -> None:
    found = preview(capsys, "finetune", "finetune-24gb")
    assert found["trained_parts"] == {"unet": UNET, "guidance.lq_adapter": ADAPTER, "guidance.peam": PEAM}
    assert UNET + PEAM == 984_547_908, "the paper's 984.5 M"
    assert (found["params"], found["trained"]) == (ALL, ALL)
    memory = found["memory"]
    assert memory["weights"] == memory["gradients"] == 4 * ALL
    assert memory["optimizer"] == 8 * ALL
    assert memory["average"] == 0, "on the CPU"
    assert (memory["vae"], memory["text_encoders"]) == (4 * VAE, 2 * TEXT)
    assert found["memory_bytes"] == sum(memory.values()) < 24e9
    assert (found["steps"], found["crops_a_step"], found["crops"]) == (10_000, 128, 1_280_000)
    assert found["missing"] == ["FaithDiff.bin", "sdxl-folder"]
    assert found["data"] == {"pictures": 0, "folder": "pictures"}


def test_what_the_choices_save(capsys: pytest.CaptureFixture[str]) -> None:
    quantised = preview(
        capsys, "finetune", "finetune-24gb", "--set", "optimizer.kind=adamw8bit", "--set", "ema.device=same"
    )
    assert quantised["memory"]["optimizer"] == 2 * ALL
    assert quantised["memory"]["average"] == 4 * ALL
    lora = preview(capsys, "finetune", "finetune-24gb", "--set", "model.train=['lora']", "--set", "model.guidance=none")
    # faithdiff.md counts it: PiSA-SR's layers at rank 16 on this UNet.
    assert lora["trained"] == pytest.approx(19.21e6, rel=1e-3)
    assert lora["params"] == UNET + lora["trained"]
    assert lora["memory"]["gradients"] == 4 * lora["trained"]


def test_activations_are_what_autograd_keeps(tmp_path: Path) -> None:
    """Against a real pass of nano on real tensors."""
    over = [f"run.folder={tmp_path / 'x'}", "data.batch=2", "data.patch=32", "run.precision=float32"]
    config = load_config(Path("nano-regress"), over)
    parts = inspect(config, str)
    subject = parts.load(torch.device("cpu"))
    select(subject, config)
    weights = {p.untyped_storage().data_ptr() for p in subject.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    batch = Batch(*torch.rand(2, 2, 3, 32, 32), ("", ""), torch.ones(2, 2), torch.ones(2, 2))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        DiffusionLoss()(subject, batch, torch.Generator())
    real = sum(s.nbytes() for s in kept.values())
    # The estimate adds a tenth for gradients on their way.
    assert activations(config, parts, empty(parts, config), "float32") == pytest.approx(1.1 * real, rel=0.05)
    spared = load_config(Path("nano-regress"), [*over, "run.checkpointing=true"])
    assert activations(spared, parts, empty(parts, spared), "float32") < 0.7 * real


def test_nano_and_what_there_is_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "nano" / "regress"
    found = preview(capsys, "finetune", "nano-regress", "--set", f"run.folder={folder}")
    assert found["data"] == {"pictures": 4000, "painted_already": False, "file": str(folder.parent / "pictures.npy")}
    assert found["memory"]["vae"] == found["memory"]["text_encoders"] == found["memory"]["workspace"] == 0
    assert found["done"] == 0
    folder.mkdir(parents=True)
    torch.save({"step": 123}, folder / "state.pt")
    assert preview(capsys, "finetune", "nano-regress", "--set", f"run.folder={folder}")["done"] == 123
    assert main(["train", "finetune", "nano-regress", "--dry-run", "--set", f"run.folder={folder}"]) == 0
    told = capsys.readouterr().err
    steps = load_config(Path("nano-regress")).run.steps
    assert f"{steps} of 16 crops: 16 x 1 accumulated x 1 process" in told
    assert "123 steps are done" in told
    assert "(estimate)" in told


def test_the_data_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(3):
        Image.new("RGB", (600, 520 + i), (i, 9, 9)).save(pictures / f"{i}.png")
    Image.new("RGB", (100, 100)).save(pictures / "small.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    (pictures / "1.txt").write_text("a cat")
    found = preview(capsys, "finetune", "finetune-24gb", "--set", f"data.folder={pictures}")
    assert (found["data"]["pictures"], found["data"]["captions"]) == (3, 1)
    assert [Path(p).name for p in found["data"]["small"]] == ["small.png"]
    assert [Path(p).name for p in found["data"]["broken"]] == ["broken.png"]
    (pictures / "2.txt").write_bytes(b"\xff")
    assert main(["train", "finetune", "finetune-24gb", "--dry-run", "--set", f"data.folder={pictures}"]) == 1
    assert "UTF-8" in capsys.readouterr().err


def test_mistakes_in_the_degradation_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "finetune", "nano-regress", "--dry-run", "--set", "data.degradation.blurr=[1, 2]"]) == 1
    assert "[data.degradation] has no 'blurr'; did you mean blur?" in capsys.readouterr().err
