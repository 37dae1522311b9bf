"""The runner: resuming, accumulation, learning rate, what stops a run, and what it leaves."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toy_runs import (
    FORKS,
    batch_of,
    batches,
    noisy,
    run_as,
    run_slowly,
    small_model,
    state_of,
    toy_config,
    toy_runner,
)

from pgp_core.errors import Cancelled, CheckpointError, TrainingError
from pgp_core.training import runner
from pgp_core.training.average import EMA
from pgp_core.training.config import Optimizer
from pgp_core.training.optimizer import build_optimizer, learning_rate
from pgp_core.training.processes import make_accelerator
from pgp_core.training.runner import Runner
from pgp_core.training.state import load_state, save_state
from pgp_core.training.subject import Batch


def killed_after(steps: int) -> Any:
    """Batches whose source breaks, as a killed process does."""

    def source(numbers: range) -> Iterator[Batch]:
        for n in numbers:
            if n >= steps:
                raise KeyboardInterrupt
            yield batch_of(n)

    return source


def broken_off(folder: Path, steps: int, **changes: Any) -> Runner:
    run = toy_runner(folder, **changes)
    with pytest.raises(KeyboardInterrupt):
        run.run(killed_after(steps), progress=False)
    return run


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# -- average -----------------------------------------------------------------------------------------------


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


# -- optimiser ---------------------------------------------------------------------------------------------


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


# -- resuming ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(accumulation: int, tmp_path: Path) -> None:
    same = {"data_accumulation": accumulation, "run_steps": 8, "ema_every": 2}
    whole = toy_runner(tmp_path / "whole", **same)
    figures = whole.run(batches, progress=False)
    assert (figures["steps"], whole.step) == (8, 8)

    broken_off(tmp_path / "parts", 5 * accumulation, **same)
    second = toy_runner(tmp_path / "parts", seed=9, **same)
    assert second.resume()
    assert second.step == 3
    second.run(batches, progress=False)

    expected, result = state_of(whole), state_of(second)
    assert result.keys() == expected.keys()
    assert all(torch.equal(result[k], expected[k]) for k in expected)
    assert not torch.equal(result["0.weight"], small_model().state_dict()["0.weight"])

    def told(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(folder)]

    assert [r["step"] for r in rows_of(tmp_path / "whole")] == [2, 4, 6, 8]
    assert told(tmp_path / "parts") == told(tmp_path / "whole"), "the log is the uninterrupted run's"


def test_killed_twenty_times_it_ends_with_the_weights_of_the_uninterrupted_run(tmp_path: Path) -> None:
    """SIGKILL at random moments, in steps and in saving alike."""
    same = {"run_steps": 180, "run_save_every": 2, "run_log_every": 3, "data_accumulation": 2}
    whole = toy_runner(tmp_path / "whole", **same)
    whole.run(batches, progress=False)
    chance, kills, steps = random.Random(0), 0, set()
    while True:
        heard, said = FORKS.Pipe(duplex=False)
        process = FORKS.Process(target=run_slowly, args=(tmp_path / "parts", said, same, 8 if kills < 20 else 180))
        process.start()
        said.close()
        steps.add(heard.recv())
        if kills < 20:
            # By what it has done, not by the clock, which depends on what else the machine does.
            for _ in range(chance.randrange(16)):
                heard.recv()
            process.join(chance.uniform(0, 0.01))
            process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    assert kills == 20
    assert len(steps) > 8, "it was killed after many a step"
    parts = toy_runner(tmp_path / "parts", seed=9, **same)
    assert parts.resume()
    expected, result = state_of(whole), state_of(parts)
    assert all(torch.equal(result[k], expected[k]) for k in expected)
    told = [[(r["step"], r["loss"]) for r in rows_of(tmp_path / k)] for k in ("whole", "parts")]
    assert told[0] == told[1]


def test_a_run_that_is_done_trains_no_more(tmp_path: Path) -> None:
    toy_runner(tmp_path).run(batches, progress=False)
    again = toy_runner(tmp_path, seed=9)
    assert again.resume()
    before = (tmp_path / "state.pt").read_bytes()
    assert again.run(killed_after(0), progress=False)["steps"] == 6
    assert (tmp_path / "state.pt").read_bytes() == before
    assert [r["step"] for r in rows_of(tmp_path)] == [2, 4, 6]


def test_half_a_row_of_the_log_comes_again(tmp_path: Path) -> None:
    broken_off(tmp_path, 5)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')
    run = toy_runner(tmp_path)
    run.resume()
    run.run(batches, progress=False)
    assert [r["step"] for r in rows_of(tmp_path)] == [2, 4, 6]


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert not toy_runner(tmp_path).resume()


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    toy_runner(tmp_path, signature={"model.plan": {"mid": [0]}, "b": 1}).run(batches, progress=False)
    with pytest.raises(CheckpointError, match=r'not from this run: there model\.plan is \{"mid": \[0\]\}') as error:
        toy_runner(tmp_path, signature={"model.plan": {"mid": [1]}, "b": 1}).resume()
    assert "\n" not in str(error.value)
    few = {"model.plan": {"mid": [0], "up": [2]}, "b": 1}
    toy_runner(tmp_path / "few", signature=few).run(batches, progress=False)
    with pytest.raises(CheckpointError, match=r'there model\.plan is \{"up": \[2\]\}, now \{"up": \[\]\}'):
        toy_runner(tmp_path / "few", signature=few | {"model.plan": {"mid": [0], "up": []}}).resume()
    other = torch.nn.Sequential(torch.nn.Linear(12, 12))
    with pytest.raises(CheckpointError, match="not from this run"):
        toy_runner(tmp_path, model=other, signature={"model.plan": {"mid": [0]}, "b": 1}).resume()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None], ids=["empty", "text", "truncated"])
def test_a_damaged_state_is_named(content: bytes | None, tmp_path: Path) -> None:
    toy_runner(tmp_path).run(batches, progress=False)
    path = tmp_path / "state.pt"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(CheckpointError, match="is damaged") as error:
        toy_runner(tmp_path).resume()
    assert "\n" not in str(error.value)


def test_a_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "done"),)

    torch.save({"format": 2, "signature": Command()}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="holds more than weights, so it is not opened"):
        toy_runner(tmp_path).resume()
    assert not (tmp_path / "done").exists()


# -- how it is spread --------------------------------------------------------------------------------------


def plain(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
    return (model(batch.lq.flatten(1)) - batch.hq.flatten(1)).square().mean()


def merged(count: int) -> Any:
    """Micro-batches of ``count`` times the size: the same samples, in fewer of them."""

    def source(numbers: range) -> Iterator[Batch]:
        for n in numbers:
            parts = [batch_of(n * count + i) for i in range(count)]
            lq, hq = (torch.cat([getattr(p, k) for p in parts]) for k in ("lq", "hq"))
            yield Batch(lq, hq, ("",) * len(lq), torch.ones(len(lq), 2), torch.zeros(len(lq), 2))

    return source


def test_accumulation_is_a_larger_batch(tmp_path: Path) -> None:
    few = toy_runner(tmp_path / "a", plain)
    few.run(merged(4), progress=False)
    many = toy_runner(tmp_path / "b", plain, data_accumulation=4)
    many.run(batches, progress=False)
    for name, value in few.subject.state_dict().items():
        torch.testing.assert_close(many.subject.state_dict()[name], value, atol=1e-6, rtol=1e-5)
    assert rows_of(tmp_path / "a")[-1]["loss"] == pytest.approx(rows_of(tmp_path / "b")[-1]["loss"], rel=1e-5)


def two_processes(folder: Path, *said: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [FORKS.Process(target=run_as, args=(rank, 2, port, folder, *said[rank:][:1])) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [p.exitcode for p in processes] == [0, 0]


def test_where_the_main_process_cannot_save_all_end(tmp_path: Path) -> None:
    """Else the others wait for it, for ever or for half an hour."""
    (tmp_path / "two" / "state.pt").mkdir(parents=True)
    ends = [FORKS.Pipe(duplex=False) for _ in range(2)]
    two_processes(tmp_path / "two", *(said for _, said in ends))
    main, other = (heard.recv() for heard, _ in ends)
    assert re.match(r"the checkpoint .*state\.pt cannot be written", main)
    assert other.startswith("the main process cannot write")


def test_two_processes_are_twice_the_accumulation(tmp_path: Path) -> None:
    """The loss draws noise, so the numbering of micro-batches shows too."""
    two_processes(tmp_path / "two")
    one = toy_runner(tmp_path / "one", data_accumulation=2)
    one.run(batches, progress=False)
    two = toy_runner(tmp_path / "two", data_accumulation=2)
    assert two.resume()
    for name, value in state_of(one).items():
        torch.testing.assert_close(state_of(two)[name], value, atol=1e-6, rtol=1e-4)
    losses = [[r["loss"] for r in rows_of(tmp_path / k)] for k in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_sharded_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate
    from accelerate.utils import DistributedType

    class Sharded:
        distributed_type = DistributedType.FSDP

        def __init__(self, **_: Any):
            pass

    monkeypatch.setattr(accelerate, "Accelerator", Sharded)
    with pytest.raises(TrainingError, match=r"FSDP.*whole copies"):
        make_accelerator()


# -- what stops a run --------------------------------------------------------------------------------------


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


# -- what it leaves ----------------------------------------------------------------------------------------


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
