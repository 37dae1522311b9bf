"""What stops a run, and what is kept then."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import batches, broken_off, noisy, rows_of, state_of, toy_runner

from pgp_core.errors import Cancelled, TrainingError
from pgp_core.training import runner
from pgp_core.training.state import load_state, save_state
from pgp_core.training.subject import Batch


def test_a_loss_that_is_nan_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    def spoiled(model: Any, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        loss = noisy(model, batch, generator)
        return loss * math.nan if broken.step == 4 else loss

    broken = toy_runner(tmp_path, spoiled)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 5 of 6 .* kept in .*state\.pt") as error:
        broken.run(batches, progress=False)
    assert "\n" not in str(error.value)
    good = toy_runner(tmp_path, seed=9)
    assert good.resume()
    assert good.step == 3
    expected = broken_off(tmp_path / "good", 3)
    assert all(torch.equal(v, state_of(expected)[k]) for k, v in state_of(good).items())


def test_a_gradient_that_is_not_finite_is_passed_over(tmp_path: Path) -> None:
    before: dict[str, torch.Tensor] = {}

    def steep(model: Any, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        if run.step == 5:
            before.update({k: v.clone() for k, v in state_of(run).items()})
            # Finite, with an infinite slope.
            return (model[0].bias * 0).abs().sqrt().sum()
        return noisy(model, batch, generator)

    run = toy_runner(tmp_path, steep)
    assert run.run(batches, progress=False)["skipped"] == 1, "and it is said"
    assert [r["skipped"] for r in rows_of(tmp_path)] == [0, 0, 1]
    assert run.step == 6
    assert all(torch.equal(v, before[k]) for k, v in state_of(run).items())


def test_gradients_that_are_never_finite_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_MOST_SKIPPED", 3)

    def steep(model: Any, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        # Twice in a row is passed over.
        return noisy(model, batch, generator) if run.step == 2 else (model[0].bias * 0).abs().sqrt().sum()

    run = toy_runner(tmp_path, steep)
    with pytest.raises(TrainingError, match=r"gradient's norm, for 3 steps in a row, is (nan|inf) at step 6 of 6"):
        run.run(batches, progress=False)
    assert run.skipped == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_step_saves_and_ends(number: signal.Signals, tmp_path: Path) -> None:
    def pressed(model: Any, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        if run.step == 3:
            os.kill(os.getpid(), number)
        return noisy(model, batch, generator)

    before = signal.getsignal(number)
    run = toy_runner(tmp_path, pressed)
    with pytest.raises(Cancelled, match="interrupted at step 4 of 6, which is saved"):
        run.run(batches, progress=False)
    assert signal.getsignal(number) is before
    second, whole = toy_runner(tmp_path, seed=9), toy_runner(tmp_path / "whole")
    assert second.resume()
    assert second.step == 4
    second.run(batches, progress=False)
    whole.run(batches, progress=False)
    assert all(torch.equal(v, state_of(whole)[k]) for k, v in state_of(second).items())


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    def pressed(model: Any, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return noisy(model, batch, generator)

    with pytest.raises(KeyboardInterrupt):
        toy_runner(tmp_path, pressed).run(batches, progress=False)
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file")]
)
def test_a_full_disk_leaves_the_last_checkpoint(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off(tmp_path, 5)

    def full(state: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise error

    run = toy_runner(tmp_path)
    run.resume()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="the checkpoint before it is kept: make room") as told:
        run.run(batches, progress=False)
    assert "\n" not in str(told.value)
    monkeypatch.undo()
    again = toy_runner(tmp_path, seed=9)
    assert again.resume()
    assert again.step == 3
    assert not list(tmp_path.glob(".*")), "nothing half-written is left"


def test_a_disk_that_is_full_for_real(tmp_path: Path) -> None:
    """A limit on the size of files, which PyTorch's writer meets in the middle of one."""
    resource = pytest.importorskip("resource")
    run = toy_runner(tmp_path, model=torch.nn.Sequential(torch.nn.Linear(12, 99), torch.nn.Linear(99, 12)))
    run.save()
    before = (tmp_path / "state.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"\(the disk took only a part of it\).*is kept: make room") as told:
            run.run(batches, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(told.value)
    assert (tmp_path / "state.pt").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "state.pt"]


def test_a_log_that_cannot_be_written_gives_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    run = toy_runner(tmp_path)
    from pgp_core.training import journal

    log = journal.Journal(tmp_path / "log.jsonl", 0)
    log._file = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(TrainingError, match="No space left"):
        log.write({"step": 1})
    log.close()
    run.run(batches, progress=False)


def test_state_files_hold_tensors_and_plain_data_alone(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", {"signature": "{}", "x": torch.ones(2)})
    assert torch.equal(load_state(tmp_path / "state.pt", {})["x"], torch.ones(2))
    assert load_state(tmp_path / "none.pt", {}) is None
