"""A report knows its model again, in whatever precision, pruned or patched, and no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reports import drawn
from safetensors.torch import save_file

from pgp_core.cli import main
from pgp_core.errors import ReportError
from pgp_core.redundancy.identity import check_model, fingerprint
from pgp_core.redundancy.report import Report
from pgp_core.unet.known import NANO
from pgp_core.unet.plan import load_plan
from pgp_core.unet.prune import prune_state_dict
from pgp_core.unet.topology import KeyMap

Weights = dict[str, torch.Tensor]


@pytest.fixture
def weights(make_unet: Callable[..., Any]) -> Weights:
    names = KeyMap()
    return {names.to_ldm(k): v for k, v in make_unet().state_dict().items()}


def _report(weights: Weights) -> Report:
    return drawn(NANO, 0, model={"name": "mine", "fingerprint": fingerprint(weights)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_a_copy_in_another_precision_is_the_same_model(dtype: torch.dtype, weights: Weights) -> None:
    copy = {k: v.to(dtype) for k, v in weights.items()}
    check_model(_report(weights), fingerprint(copy), "x")
    check_model(_report(copy), fingerprint(weights), "x")
    # Two coarse copies of one file, neither of which is the other's rounding.
    check_model(_report(copy), fingerprint({k: v.bfloat16() for k, v in weights.items()}), "x")


def test_a_pruned_and_a_patched_copy_are_the_same_model(weights: Weights) -> None:
    names = KeyMap()
    diffusers = {names.to_diffusers(k): v for k, v in weights.items()}
    pruned = {names.to_ldm(k): v for k, v in prune_state_dict(diffusers, load_plan("pgp-nano")).items()}
    assert len(pruned) < len(weights)
    check_model(_report(weights), fingerprint(pruned), "x")
    # A LoRA changes matrices and kernels, not vectors.
    check_model(_report(weights), fingerprint({k: v + (v.ndim > 1) for k, v in weights.items()}), "x")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_another_model_is_refused_in_one_line(
    dtype: torch.dtype, weights: Weights, make_unet: Callable[..., Any]
) -> None:
    names = KeyMap()
    other = {names.to_ldm(k): v.to(dtype) for k, v in make_unet(seed=1).state_dict().items()}
    with pytest.raises(ReportError, match="measured on mine, another model than yours") as error:
        check_model(_report(weights), fingerprint(other), "yours")
    assert "\n" not in str(error.value)
    # Fine-tuning moves every weight a little.
    tuned = {k: v * 1.01 for k, v in weights.items()}
    with pytest.raises(ReportError, match="another model"):
        check_model(_report(weights), fingerprint({k: v.to(dtype) for k, v in tuned.items()}), "yours")


def test_what_cannot_be_compared_passes_and_what_is_damaged_does_not(weights: Weights) -> None:
    now = fingerprint(weights)
    for unknown in (None, "0123", {}):
        check_model(drawn(NANO, 0, model={"name": "old", "fingerprint": unknown}), now, "x")
    # Weights that core has not loaded yet have no data.
    assert fingerprint({k: v.to("meta") for k, v in weights.items()}) == {}
    check_model(_report(weights), {}, "x")
    name = next(iter(now))
    for broken in ({"dtype": "float32"}, {"dtype": "int8", "values": [1]}, {"dtype": "float32", "values": ["a"]}):
        report = replace(_report(weights), model={"name": "x", "fingerprint": {**now, name: broken}})
        with pytest.raises(ReportError, match="fingerprint is wrong"):
            check_model(report, now, "x")


def test_plan_build_holds_the_report_against_a_file(
    weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pgp_core.restorers.nano.model import FOLDER, UNET_FILE

    nano = FOLDER / UNET_FILE
    from pgp_core.files.checkpoints import read_safetensors

    own, _ = read_safetensors(nano)
    _report(own).save(tmp_path / "own.json")
    _report(weights).save(tmp_path / "other.json")
    build = ["plan", "build", "--method", "dial", "--amount", "0.5", "--model", str(nano), "-o"]
    assert main([*build, str(tmp_path / "a.json"), "--report", str(tmp_path / "own.json")]) == 0
    capsys.readouterr()
    assert main([*build, str(tmp_path / "b.json"), "--report", str(tmp_path / "other.json")]) == 1
    error = capsys.readouterr().err.strip()
    assert "another model than pgp-nano-unet.safetensors" in error and "\n" not in error
    assert not (tmp_path / "b.json").exists()
    save_file({"x": torch.zeros(2)}, tmp_path / "none.safetensors")
    build[build.index(str(nano))] = str(tmp_path / "none.safetensors")
    assert main([*build, str(tmp_path / "b.json"), "--report", str(tmp_path / "own.json")]) == 1
