"""Redundancy: measures against SciPy in double precision, the recorder against a plain two-pass computation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgp_core.errors import ReportError
from pgp_core.planner.dial import dial
from pgp_core.redundancy.measures import channels_last, phi_cos, psi_kl
from pgp_core.redundancy.recorder import Recorder, series_of
from pgp_core.redundancy.report import ALL, MODULES, Block, Report, load_report
from pgp_core.redundancy.statistics import RESERVOIR, Running
from pgp_core.unet.known import NANO
from pgp_core.unet.plan import PrunePlan, StackPlan


def by_scipy(a: torch.Tensor, b: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean dissimilarity and divergence over positions, for ``(B, positions, C)``."""
    x, y = a.double().numpy(), b.double().numpy()
    cos = np.empty(x.shape[:2])
    for i in np.ndindex(*cos.shape):
        both, one = not (x[i].any() or y[i].any()), not (x[i].any() and y[i].any())
        cos[i] = 0 if both else 1 if one else scipy.spatial.distance.cosine(x[i], y[i])
    p, q = scipy.special.log_softmax(x, -1), scipy.special.log_softmax(y, -1)
    kl = (np.exp(p) * (p - q)).sum(-1)
    return cos.mean(-1), kl.mean(-1)


@pytest.mark.parametrize(
    "kind", ["plain", "near", "large half", "zeros", "one zero", "one channel", "tiny", "opposite"]
)
def test_measures_are_scipys(kind: str) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 7, 5, generator=g), torch.randn(3, 7, 5, generator=g)
    if kind == "near":
        b = a + 1e-3 * b
    elif kind == "large half":
        a, b = (a * 1e4).half(), (b * 1e4).half()
    elif kind == "zeros":
        a, b = torch.zeros_like(a), torch.zeros_like(b)
    elif kind == "one zero":
        b = torch.zeros_like(b)
    elif kind == "one channel":
        a, b = a[..., :1], b[..., :1]
    elif kind == "tiny":
        a, b = a * 1e-25, b * 1e-25
    elif kind == "opposite":
        b = -a
    expected = by_scipy(a, b)
    x, y = channels_last(a), channels_last(b)
    for ours, theirs in zip((phi_cos(x, y), psi_kl(x, y)), expected, strict=True):
        assert ours.isfinite().all()
        np.testing.assert_allclose(ours.double().numpy(), theirs, rtol=2e-4, atol=2e-6)


def test_both_layouts_are_the_same() -> None:
    x = torch.randn(2, 6, 3, 5)
    assert torch.equal(channels_last(x), channels_last(x.flatten(2).transpose(1, 2)))
    with pytest.raises(ValueError, match="not"):
        channels_last(torch.zeros(2, 3))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=RESERVOIR))
def test_running_statistics_are_numpys(values: list[float]) -> None:
    running = Running()
    for start in range(0, len(values), 3):
        running.add(values[start : start + 3])
    found, scale = running.to_json(), max(1.0, *map(abs, values))
    expected = {
        "count": len(values),
        "mean": np.mean(values),
        "std": np.std(values, ddof=1),
        "min": min(values),
        "q1": np.percentile(values, 25),
        "median": np.median(values),
        "q3": np.percentile(values, 75),
        "max": max(values),
    }
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert math.isclose(found[key], value, rel_tol=1e-9, abs_tol=1e-9 * scale), key


def test_the_reservoir_is_bounded_and_fair() -> None:
    running = Running()
    running.add(float(i) for i in range(100_000))
    assert len(running.reservoir) == RESERVOIR
    assert scipy.stats.kstest(running.reservoir, "uniform", args=(0, 100_000)).pvalue > 0.01


# -- the recorder --------------------------------------------------------------------------------------------


def _watched(unet: torch.nn.Module, calls: list[dict[str, Any]]) -> list[Any]:
    """Hooks of the test's own, which keep everything."""

    def keep(key: Any, inputs: bool) -> Any:
        def hook(_m: Any, args: Any, output: Any) -> None:
            out = output if isinstance(output, torch.Tensor) else output[0]
            calls[-1][key] = (args[0].clone(), out.clone()) if inputs else out.clone()

        return hook

    handles = [unet.get_submodule(m).register_forward_hook(keep(k, False)) for k, m in MODULES.items()]
    for name, module in unet.named_modules():
        if name.rpartition(".")[0].endswith(".transformer_blocks"):
            handles.append(module.register_forward_hook(keep(name, True)))
    return handles


@torch.no_grad()
def test_the_recorder_is_a_plain_two_pass_computation(
    make_unet: Callable[..., Any], call_unet: Callable[..., Any]
) -> None:
    plan = PrunePlan("gaps", "pgp-nano", {"mid_block.attentions.0": StackPlan(4, (1, 3))})
    unet = make_unet(plan)
    recorder, calls, plain = Recorder(unet), [], []
    steps = [951.0, 901.0, 851.0]
    for i, t in enumerate(steps):
        calls.append({})
        handles = _watched(unet, calls)
        plain.append(call_unet(unet, batch=4, seed=i))
        for handle in handles:
            handle.remove()
        with recorder.call(t, (1, 0)):
            again = call_unet(unet, batch=4, seed=i)
        assert torch.equal(again, plain[-1])
    assert recorder.calls == 3 and recorder.dropped == 0
    assert not any(m._forward_hooks for m in unet.modules())

    for short in MODULES:
        found = series_of(recorder.modules[short])
        assert list(found) == ["901", "851", ALL]
        expected = {
            str(int(t)): by_scipy(channels_last(calls[i][short]), channels_last(calls[i + 1][short]))
            for i, t in enumerate(steps[1:])
        }
        _compare(found, expected)
    assert {b for b in recorder.blocks if b[0] == "mid_block.attentions.0"} == {
        ("mid_block.attentions.0", 1),
        ("mid_block.attentions.0", 3),
    }
    for (stack, number), running in recorder.inside.items():
        found = series_of(running)
        key = f"{stack}.transformer_blocks.{number}"
        expected = {str(int(t)): by_scipy(*map(channels_last, calls[i][key])) for i, t in enumerate(steps)}
        assert list(found) == ["951", "901", "851", ALL]
        _compare(found, expected)


def _compare(found: Any, expected: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    both = {**expected, ALL: tuple(np.concatenate(v) for v in zip(*expected.values(), strict=True))}
    for step, values in both.items():
        for measure, numbers in zip(("phi_cos", "psi_kl"), values, strict=True):
            stats = found[step][measure]
            assert stats.count == len(numbers)
            np.testing.assert_allclose(
                [stats.mean, stats.std, stats.min, stats.median, stats.max],
                [numbers.mean(), numbers.std(ddof=1), numbers.min(), np.median(numbers), numbers.max()],
                rtol=1e-3,
                atol=1e-6,
            )


@torch.no_grad()
def test_streams_together_or_apart_are_the_same(make_unet: Callable[..., Any], call_unet: Callable[..., Any]) -> None:
    unet = make_unet()
    together, apart = Recorder(unet), Recorder(unet)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=g)
    context, pooled = torch.randn(2, 5, 16, generator=g), torch.randn(2, 16, generator=g)
    ids = torch.full((2, 6), 64.0)

    def run(part: slice, t: float) -> None:
        added = {"text_embeds": pooled[part], "time_ids": ids[part]}
        unet(x[part] * t, torch.full((len(x[part]),), t), encoder_hidden_states=context[part], added_cond_kwargs=added)

    for t in (801.0, 401.0):
        with together.call(t, ("uncond", "cond")):
            run(slice(0, 2), t)
        for i, stream in enumerate(("uncond", "cond")):
            with apart.call(t, (stream,)):
                run(slice(i, i + 1), t)
    for short in MODULES:
        a, b = (series_of(r.modules[short])[ALL]["phi_cos"] for r in (together, apart))
        assert a.count == b.count == 2
        assert math.isclose(a.mean, b.mean, rel_tol=1e-3, abs_tol=1e-6)


@torch.no_grad()
def test_a_call_that_fails_counts_for_nothing(make_unet: Callable[..., Any], call_unet: Callable[..., Any]) -> None:
    unet = make_unet()
    recorder = Recorder(unet)
    with recorder.call(951.0):
        call_unet(unet)
    before = {k: series_of(v) for k, v in recorder.inside.items()}
    with pytest.raises(KeyboardInterrupt), recorder.call(901.0):
        call_unet(unet)
        raise KeyboardInterrupt
    assert {k: series_of(v) for k, v in recorder.inside.items()} == before
    assert recorder.calls == 1 and not any(m._forward_hooks for m in unet.modules())


@torch.no_grad()
@pytest.mark.parametrize("seed", range(20))
def test_the_planner_finds_planted_redundancy(
    seed: int, make_unet: Callable[..., Any], call_unet: Callable[..., Any]
) -> None:
    """Blocks whose output projections are next to nothing, at places that a seed chooses, and no others."""
    unet = make_unet(seed=seed)
    depths = NANO.depths
    g = torch.Generator().manual_seed(seed)
    # One block of each stack has to stay.
    stays = {s: int(torch.randint(d, (), generator=g)) for s, d in depths.items()}
    free = [(s, n) for s, d in depths.items() for n in range(d) if n != stays[s]]
    planted = {free[i] for i in torch.randperm(len(free), generator=g)[: 3 + seed % 10]}
    for stack, number in planted:
        block = unet.get_submodule(f"{stack}.transformer_blocks.{number}")
        for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
            layer.weight.mul_(1e-3)
            layer.bias.mul_(1e-3)
    recorder = Recorder(unet)
    with recorder.call(501.0):
        call_unet(unet, seed=seed)
    report = _report(recorder)
    plan = dial(report, len(planted) / (sum(depths.values()) - len(depths)))
    assert {(s, n) for s, e in plan.stacks.items() for n in range(e.depth) if n not in e.keep} == planted


# -- the report ----------------------------------------------------------------------------------------------


def _report(recorder: Recorder) -> Report:
    blocks: dict[str, dict[int, Block]] = {}
    for (stack, number), running in recorder.inside.items():
        blocks.setdefault(stack, {})[number] = Block(10, 20, series_of(running))
    return Report(
        topology="pgp-nano",
        model={"name": "test", "fingerprint": "0"},
        totals={"params": 1000, "macs": 2000},
        measured={"pictures": None, "steps": 2, "calls": recorder.calls},
        modules={k: series_of(v) for k, v in recorder.modules.items()},
        blocks=blocks,
        versions={"torch": torch.__version__},
        maps=recorder.feature_maps(),
    )


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Report:
    torch.manual_seed(0)
    from pgp_core.unet.known import NANO_SHAPE
    from pgp_core.unet.on_diffusers import build_unet

    shape = replace(NANO_SHAPE, latent_channels=4, channels=(32, 32, 32), context_dim=16, pooled_dim=16)
    unet = build_unet(shape).eval()
    recorder = Recorder(unet)
    for t in (951.0, 901.0):
        with torch.no_grad(), recorder.call(t):
            unet(
                torch.randn(2, 4, 8, 8),
                torch.full((2,), t),
                encoder_hidden_states=torch.randn(2, 5, 16),
                added_cond_kwargs={"text_embeds": torch.randn(2, 16), "time_ids": torch.full((2, 6), 64.0)},
            )
    return _report(recorder)


def test_reports_come_back_from_files(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "r.json")
    again = load_report(tmp_path / "r.json")
    assert again == report
    assert again.dumps() == report.dumps()


def _at(data: Any, *path: str) -> Any:
    for key in path:
        data = data[key]
    return data


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("format",), "x", "no redundancy report"),
        (("version",), 2, "update"),
        (("version",), "1", "whole number"),
        (("topology",), 3, "text"),
        (("totals", "params"), -1, "whole number"),
        (("modules",), [], "object"),
        (("modules", "E_1", ALL, "phi_cos", "mean"), float("nan"), "NaN"),
        (("modules", "E_1", ALL, "phi_cos", "count"), 1.5, "whole number"),
        (("blocks", "mid_block.attentions.0", "0", "timesteps", "951"), {}, "phi_cos"),
        (("blocks", "mid_block.attentions.0", "x"), {}, "'x'"),
        (("maps", "E_1", "951", "height"), 4000, "4000"),
        (("maps", "E_1", "951", "levels"), "not base64!", "levels"),
        (("maps", "E_1", "951", "levels"), "AAAA", "3 levels"),
        (("maps", "E_1", "951", "low"), float("inf"), "Infinity is no number"),
    ],
)
def test_wrong_reports_are_refused_in_one_line(
    path: tuple[str, ...], value: Any, words: str, report: Report, tmp_path: Path
) -> None:
    data = json.loads(report.dumps())
    _at(data, *path[:-1])[path[-1]] = value
    (tmp_path / "wrong.json").write_text(json.dumps(data))
    with pytest.raises(ReportError, match=words) as error:
        load_report(tmp_path / "wrong.json")
    assert "wrong.json" in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_file_of_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("no JSON")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name, words in (("text.json", "not valid JSON"), ("binary.json", "cannot be read"), ("none", "no file")):
        with pytest.raises(ReportError, match=words):
            load_report(tmp_path / name)
