"""Micro-batches over steps and processes."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import FORKS, batch_of, batches, rows_of, run_as, state_of, toy_runner

from pgp_core.errors import TrainingError
from pgp_core.training.processes import make_accelerator
from pgp_core.training.subject import Batch


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
