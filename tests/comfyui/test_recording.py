"""Redundancy recorded in ComfyUI against the same recorder on diffusers' backbone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pgp_core.redundancy.recorder import Recorder, series_of
from pgp_core.redundancy.report import ALL, MODULES, Report
from pgp_core.unet.plan import load_plan

from . import diffusers_side
from .in_process import Checks


@pytest.fixture(scope="module")
def measured_report(checks: Checks) -> Report:
    return Report.from_json(checks["recording"]["report"])


def test_recording_changes_no_sampled_bit(checks: Checks) -> None:
    result = checks["recording"]
    assert result["bit-equal"]
    assert result["afterwards"]
    assert result["hooks left"] == 0


def test_the_report_says_on_what_it_was_measured(measured_report: Report) -> None:
    measured = measured_report.measured
    assert (measured["pictures"], measured["steps"], measured["calls"]) == (2, 4, 4)
    assert (measured["sampler"], measured["seed"], measured["cfg"]) == ("sample_euler", ["5"], [1.5])
    assert measured["latent"] == [17, 13]
    assert not measured_report.partial
    assert measured_report.topology == "pgp-nano"
    assert {s: tuple(b) for s, b in measured_report.blocks.items()} == {
        s: e.keep for s, e in load_plan("pgp-nano").stacks.items()
    }


@torch.inference_mode()
def test_the_numbers_are_those_of_the_other_backbone(checks: Checks, measured_report: Report) -> None:
    tensors = checks.tensors("recording")
    recorders = []
    make = diffusers_side._pipeline

    def recorded(tensors: dict[str, torch.Tensor]) -> Any:
        pipeline = make(tensors)
        recorder, forward = Recorder(pipeline.unet), pipeline.unet.forward
        recorders.append(recorder)

        def call(x: torch.Tensor, t: torch.Tensor, **kwargs: Any) -> Any:
            # [uncond, cond], as core has them.
            with recorder.call(float(t[0]), (1, 0)):
                return forward(x, t, **kwargs)

        pipeline.unet.forward = call  # type: ignore[method-assign]
        return pipeline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusers_side, "_pipeline", recorded)
        diffusers_side.sampled(tensors)
    (recorder,) = recorders
    pairs = [(measured_report.modules[m], series_of(recorder.modules[m])) for m in MODULES]
    pairs += [(measured_report.blocks[s][n].series, series_of(r)) for (s, n), r in recorder.inside.items()]
    assert len(pairs) == 6 + 17
    for ours, theirs in pairs:
        assert list(ours) == list(theirs)
        for measure in ("phi_cos", "psi_kl"):
            a, b = ours[ALL][measure], theirs[ALL][measure]
            assert a.count == b.count
            for number in ("mean", "std", "min", "median", "max"):
                assert math.isclose(getattr(a, number), getattr(b, number), rel_tol=1e-3, abs_tol=1e-5)
    for short, maps in recorder.feature_maps().items():
        for step, theirs in maps.items():
            ours = measured_report.maps[short][step]
            assert torch.allclose(ours.values(), theirs.values(), atol=2 / 255 * (theirs.high - theirs.low))


def test_a_report_of_another_model_is_refused(checks: Checks) -> None:
    name, message, vectors = checks["recording"]["report of another"]
    assert name == "ReportError" and "measured on another" in message and "\n" not in message
    assert vectors > 100


def test_skipped_blocks_are_not_in_the_report(checks: Checks) -> None:
    blocks = checks["recording"]["blocks when skipped"]
    assert blocks["up_blocks.0.attentions.1"] == []
    assert blocks["up_blocks.0.attentions.0"] == list(load_plan("pgp-nano").stacks["up_blocks.0.attentions.0"].keep)


def test_an_interrupted_recording_is_kept_and_marked(checks: Checks) -> None:
    assert checks["recording"]["interrupted"]
    partial, calls = checks["recording"]["kept"]
    assert partial is True
    assert calls == 2


def test_an_empty_recording_is_refused(checks: Checks) -> None:
    name, message = checks["recording"]["nothing recorded"]
    assert name == "ReportError"
    assert "nothing has been recorded" in message and "\n" not in message
