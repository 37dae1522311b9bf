"""A resumed run is the uninterrupted one, and the state of another is refused."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import FORKS, batches, broken_off, killed_after, rows_of, run_slowly, small_model, state_of, toy_runner

from pgp_core.errors import CheckpointError


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
