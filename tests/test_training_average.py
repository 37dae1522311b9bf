"""The averaged weights: a plain loop, with a warm start."""

from __future__ import annotations

from pathlib import Path

import torch
from toy_runs import batches, small_model, toy_runner

from pgp_core.training.average import EMA


def test_ema_is_a_plain_loop_with_a_warm_start() -> None:
    model = small_model().double()
    model[2].bias.requires_grad_(False)
    ema = EMA(model, decay=0.5)
    expected = {n: p.detach().clone() for n, p in model.named_parameters()}
    for n in range(1, 15):
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(n)))
        ema.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        for name, p in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()
    assert set(ema.shadow) == {"0.weight", "0.bias", "2.weight"}, "frozen parameters have no average"
    own = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.train()
    with ema.in_place(model):
        assert not model.training
        for name, p in model.named_parameters():
            torch.testing.assert_close(p, expected[name])
    assert model.training
    for name, p in model.named_parameters():
        assert torch.equal(p, own[name]), "the model has its own weights again"
    for name, value in ema.shadow.items():
        torch.testing.assert_close(value, expected[name])


def test_the_average_may_be_updated_seldom(tmp_path: Path) -> None:
    run = toy_runner(tmp_path, ema_every=4)
    run.run(batches, progress=False)
    assert run.ema is not None
    assert run.ema.updates == 1
    without = toy_runner(tmp_path / "b", ema_enabled=False)
    without.run(batches, progress=False)
    assert without.ema is None
    assert not without.averaged(lambda model: model.training)
