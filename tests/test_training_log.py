"""What a run leaves: its log and pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toy_runs import batches, killed_after, noisy, rows_of, small_model, toy_config, toy_runner

from pgp_core.errors import TrainingError
from pgp_core.training.optimizer import learning_rate
from pgp_core.training.processes import make_accelerator
from pgp_core.training.runner import Runner


def test_the_log(tmp_path: Path) -> None:
    losses: list[float] = []

    def noted(*args: Any) -> torch.Tensor:
        loss = noisy(*args)
        losses.append(loss.item())
        return loss

    figures = toy_runner(tmp_path, noted, run_steps=7).run(batches, progress=False)
    rows = rows_of(tmp_path)
    assert [r["step"] for r in rows] == [2, 4, 6, 7]
    for i, row in enumerate(rows):
        assert row["loss"] == pytest.approx(np.mean(losses[2 * i : 2 * i + 2]))
        last = row["step"] - 1
        assert row["lr"] == pytest.approx(learning_rate(toy_config(tmp_path, run_steps=7).optimizer, last, 7))
        assert row["grad_norm"] > 0
        assert row["seconds"] >= 0
    assert figures["loss"] == pytest.approx(losses[-1])
    json.dumps(figures)


def test_sample_pictures_show_the_averaged_weights(tmp_path: Path) -> None:
    config = toy_config(tmp_path, run_sample_every=4)
    seen = []

    def picture(model: torch.nn.Module) -> Image.Image:
        seen.append(model[0].weight.detach().clone())
        return Image.new("RGB", (6, 2), (1, 2, 3))

    run = Runner(small_model(), noisy, config, make_accelerator("cpu"), {}, picture)
    run.run(batches, progress=False)
    assert [p.name for p in tmp_path.glob("sample-*.png")] == ["sample-000004.png"]
    assert Image.open(tmp_path / "sample-000004.png").size == (6, 2)
    twin = toy_runner(tmp_path / "twin", run_steps=6, run_save_every=4)
    broken = killed_after(4)
    with pytest.raises(KeyboardInterrupt):
        twin.run(broken, progress=False)
    assert twin.ema is not None
    assert torch.equal(seen[0], twin.ema.shadow["0.weight"])


def test_tensorboard_without_its_library_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r'pip install "pgp-diffsr\[tensorboard\]"'):
        toy_runner(tmp_path, run_tensorboard=True).run(batches, progress=False)
