"""Runs against discriminators: resumed, in several processes, cancelled, and wrongly asked for."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from adversarial_runs import batches, configured, killed_after, run_as, runner, whole_state
from toy_runs import FORKS, rows_of

from pgp_core.errors import CheckpointError, ConfigError
from pgp_core.training.distillation import check_files


def told(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(folder)]


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    same = {"data_accumulation": 2, "run_steps": 7}
    whole = runner(tmp_path / "whole", **same)
    whole.run(batches, progress=False)
    first = runner(tmp_path / "parts", **same)
    with pytest.raises(KeyboardInterrupt):
        first.run(killed_after(11), progress=False)
    second = runner(tmp_path / "parts", seed=9, **same)
    assert second.resume() and second.step == 3
    second.run(batches, progress=False)
    expected, result = whole_state(whole), whole_state(second)
    assert result.keys() == expected.keys()
    assert any(k.startswith("judges.heads.mean") for k in expected) and "pull.others" in expected
    assert all(torch.equal(result[k], expected[k]) for k in expected)
    assert told(tmp_path / "parts") == told(tmp_path / "whole"), "the log is the uninterrupted run's"
    terms = told(tmp_path / "whole")[1]["terms"]
    assert {"l1", "perceptual", "adversarial_heads", "discriminator_pixels", "pull_others"} <= terms.keys()
    assert terms["weight_heads"] > 0 and terms["weight_pixels"] > 0


def test_what_discriminators_do_alone_moves_no_model(tmp_path: Path) -> None:
    run = runner(tmp_path, run_steps=4, adversarial_alone=3)
    start = {k: v.clone() for k, v in whole_state(run).items()}
    with pytest.raises(KeyboardInterrupt):
        run.run(killed_after(3), progress=False)
    now = whole_state(run)
    still = [k for k in start if not k.startswith("judges.")]
    assert len(still) > 6 and all(torch.equal(now[k], start[k]) for k in still)
    judges = [k for k in start if "weight.original" in k]
    assert judges and not any(torch.equal(now[k], start[k]) for k in judges)
    assert run.ema is not None and run.ema.updates == 0


def test_the_second_pass_is_made_in_every_second_step(tmp_path: Path) -> None:
    runner(tmp_path, run_log_every=1, run_steps=5, adversarial_alone=0).run(batches, progress=False)
    # Row n is of step n - 1.
    assert ["shifted" in row["terms"] for row in rows_of(tmp_path)[:4]] == [True, False, True, False]


def test_two_processes_are_twice_the_accumulation(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [FORKS.Process(target=run_as, args=(rank, 2, port, tmp_path / "two")) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [p.exitcode for p in processes] == [0, 0]
    one = runner(tmp_path / "one", data_accumulation=2)
    one.run(batches, progress=False)
    two = runner(tmp_path / "two", data_accumulation=2)
    assert two.resume()
    expected, result = whole_state(one), whole_state(two)
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, atol=1e-5, rtol=1e-3, msg=name)


def test_states_of_other_runs_are_refused(tmp_path: Path) -> None:
    runner(tmp_path).run(batches, progress=False)
    for change in ({"adversarial_width": 5}, {"adversarial_heads": 0.0}, {"adversarial_unshuffle": 1}):
        with pytest.raises(CheckpointError, match="is not from this run") as error:
            runner(tmp_path, **change).resume()
        assert "\n" not in str(error.value)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for wrong in ([1], {"judges": {}}, {**state["adversary"], "pulls": {"others": "x"}}):
        torch.save({**state, "adversary": wrong}, tmp_path / "state.pt")
        with pytest.raises(CheckpointError, match="is not from this run"):
            runner(tmp_path).resume()
    del state["adversary"]
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="is not from this run"):
        runner(tmp_path).resume()


def test_bfloat16_trains(tmp_path: Path) -> None:
    run = runner(tmp_path, run_steps=4)
    run.precision = "bf16"
    before = run.trained()["unet.0.weight"].clone()
    figures = run.run(batches, progress=False)
    assert figures["skipped"] == 0 and not torch.equal(run.trained()["unet.0.weight"], before)
    assert all(v.dtype in (torch.float32, torch.int64, torch.float64) for v in whole_state(run).values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"adversarial_heads": 0.0, "adversarial_pixels": 0.0}, "no discriminator"),
        ({"adversarial_alone": 6}, r"adversarial\.alone must be less than run\.steps, 6"),
        ({"adversarial_weights": "pul"}, r'adversarial\.weights must be one of "pull", "fixed"'),
        ({"adversarial_head": 1.0}, "did you mean heads"),
        ({"data_patch": 24}, r"data\.patch must be at least 32 for s1\.shifted"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        configured(tmp_path, **change)


def test_a_pull_needs_something_to_be_a_share_of(tmp_path: Path) -> None:
    latent = {"s1_space": "latent", "s1_perceptual": 0.0}
    with pytest.raises(ConfigError, match=r'adversarial\.weights "pull" needs a term that compares pictures'):
        check_files(configured(tmp_path, **latent))
    check_files(configured(tmp_path, adversarial_weights="fixed", **latent))
    check_files(configured(tmp_path))
