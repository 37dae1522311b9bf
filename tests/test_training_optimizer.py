"""The optimiser: learning rates over time and by name, and what there is to train."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_runs import batches, small_model, toy_runner

from pgp_core.errors import TrainingError
from pgp_core.training.config import Optimizer
from pgp_core.training.optimizer import build_optimizer, learning_rate


@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_the_learning_rate_rises_and_falls_along_a_cosine(warmup: int) -> None:
    config = Optimizer(lr=0.3, warmup=warmup)
    rates = [learning_rate(config, i, 25) for i in range(25)]
    n = 25 - warmup
    expected = [0.3 * (i + 1) / warmup for i in range(warmup)]
    expected += [0.3 * math.cos(math.pi / 2 * i / n) ** 2 for i in range(n)]
    np.testing.assert_allclose(rates, expected)
    assert [learning_rate(Optimizer(lr=0.3, schedule="constant", warmup=2), i, 9) for i in (0, 1, 2, 8)] == [
        0.15,
        0.3,
        0.3,
        0.3,
    ]


def test_learning_rates_by_name(tmp_path: Path) -> None:
    """One step of Adam moves every weight by its learning rate, whatever the gradient."""
    run = toy_runner(
        tmp_path, optimizer_lr_factors={"0.": 0.3}, optimizer_weight_decay=0.0, optimizer_warmup=0, run_steps=1
    )
    before = {k: v.clone() for k, v in run.subject.state_dict().items()}
    run.run(batches, progress=False)
    for name, value in run.subject.state_dict().items():
        moved = (value - before[name]).abs()
        expected = torch.full_like(moved, 1e-2 * (0.3 if name.startswith("0.") else 1))
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-6)


def test_8_bit_states_without_their_library_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(TrainingError, match=r'pip install "pgp-diffsr\[adam8bit\]"'):
        build_optimizer(small_model(), Optimizer(kind="adamw8bit"))


def test_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"model\.train"):
        toy_runner(tmp_path, model=small_model().requires_grad_(False))
