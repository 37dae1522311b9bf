"""``pgp-diffsr bench unet``: the contract, and that it measures what it says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pgp_core.bench import BenchOptions, bench_unet, run
from pgp_core.bench.injection import injection_seconds
from pgp_core.bench.memory import peak_memory
from pgp_core.bench.rows import Net, StepGuidance, make_inputs, make_weights, rows_of
from pgp_core.bench.weights import fill
from pgp_core.cli import main
from pgp_core.guidance.module import GuidanceSpec
from pgp_core.unet.known import NANO_SHAPE, SDXL_SHAPE
from pgp_core.unet.layers import Block
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import load_plan
from pgp_core.unet.prune import prune_module

ROWS = ["full", "faithdiff", "coarse", "fine", "fine+peam"]
NANO = ["bench", "unet", "--device", "cpu", "--shape", "pgp-nano", "--latent", "8", "--repeats", "2"]
CPU = torch.device("cpu")


def nets(shape: Any = NANO_SHAPE, device: str = "cpu", latent: int = 8, batch: int = 1) -> dict[str, Net]:
    weights = make_weights(shape, device, torch.float32)
    inputs = make_inputs(shape, latent, batch, device, torch.float32)
    return {row.name: Net(row, shape, weights, inputs, latent) for row in rows_of(shape)}


@pytest.fixture
def one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row only, for errors that come with its first step."""
    monkeypatch.setattr(run, "rows_of", lambda shape: rows_of(shape)[:1])


@pytest.fixture
def two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and the last row: what is there for every comparison, in less time."""
    monkeypatch.setattr(run, "rows_of", lambda shape: rows_of(shape)[:: len(ROWS) - 1])


# -- the contract ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        emitted: list[Any] = []
        patch.setattr("pgp_core.cli.bench.emit", emitted.append)
        assert main([*NANO, "--json"]) == 0
    (row,) = emitted
    return json.loads(json.dumps(row))


def test_fields_of_the_contract(data: Any) -> None:
    assert (data["device"], data["dtype"], data["latent"]) == ("cpu", "float32", 8)
    assert [row["name"] for row in data["rows"]] == ROWS
    for row in data["rows"]:
        for field, kind in (
            ("seconds_per_step", float),
            ("ratio_to_full", float),
            ("peak_memory_bytes", int),
            ("params", int),
        ):
            assert type(row[field]) is kind, field
        assert 0 < row["seconds_min"] <= row["seconds_per_step"] <= row["seconds_max"]
        assert row["ratio_to_full"] == pytest.approx(row["seconds_per_step"] / data["rows"][0]["seconds_per_step"])
        assert row["weights_bytes"] == 4 * row["params"]
        assert row["peak_memory_bytes"] == 0 or row["peak_memory_bytes"] > row["weights_bytes"]
    full = data["rows"][0]["seconds_per_step"]
    assert data["injection_overhead_ratio"] == pytest.approx(data["injection_seconds"] / full)


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(NANO) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ROWS
    assert "float32" in lines[6]
    assert "8 x 8" in lines[6]


@pytest.mark.usefixtures("two_rows")
@pytest.mark.parametrize(
    ("options", "batch", "dtype"),
    [(["--cfg", "--batch", "3"], 6, torch.float32), (["--dtype", "bf16"], 1, torch.bfloat16)],
)
def test_options_reach_the_unet(
    options: list[str], batch: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    step = Net.step
    monkeypatch.setattr(Net, "step", lambda net: seen.append(step(net)) or seen[-1])
    assert main([*NANO, *options]) == 0
    assert {(tuple(x.shape), x.dtype) for x in seen} == {((batch, 48, 8, 8), dtype)}


@pytest.mark.usefixtures("two_rows")
def test_a_latent_that_the_unet_has_to_pad_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NANO, "--latent", "10", "--repeats", "1"]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pgp-diffsr: ")]
    assert len(warnings) == 1
    assert "multiple of 4" in warnings[0]


# -- what is measured --------------------------------------------------------------------------------------


def test_parameters_of_sdxl_s_rows() -> None:
    sdxl = nets(SDXL_SHAPE, "meta", latent=128)
    # FaithDiff's alignment, 640 wide: in each of two blocks two norms, value, out, 640 -> 1280 -> 640; then 640 -> 320.
    block = 2 * 2 * 640 + 2 * (640 * 640 + 640) + (640 * 1280 + 1280) + (1280 * 640 + 640)
    alignment = 2 * block + 640 * 320 + 320
    assert {name: net.params for name, net in sdxl.items()} == {
        "full": 2_567_463_684,
        "faithdiff": 2_567_463_684 + alignment,
        "coarse": 1_609_045_764,
        "fine": 983_440_644,
        "fine+peam": 984_547_908,
    }


def test_every_row_calls_the_blocks_that_its_plan_keeps() -> None:
    calls: Counter[str] = Counter()
    for name, net in nets().items():
        for module in net.unet.modules():
            if isinstance(module, Block):
                module.register_forward_hook(lambda *_, name=name: calls.update([name]))
        net.step()
    # 2 stacks of 2, then 2, 1 and 3 of 4, then 3 of 2.
    full = 2 * 2 + (2 + 1 + 3) * 4 + 3 * 2
    coarse, fine = (full - load_plan(p).removed for p in ("pgp-nano-coarse", "pgp-nano"))
    assert full > coarse > fine
    assert calls == {"full": full, "faithdiff": full, "coarse": coarse, "fine": fine, "fine+peam": fine}


def test_rows_share_one_set_of_weights() -> None:
    weights = make_weights(NANO_SHAPE, "cpu", torch.float32)
    inputs = make_inputs(NANO_SHAPE, 8, 1, "cpu", torch.float32)
    before = {k: (v.data_ptr(), v.clone()) for k, v in weights.items()}
    for row in rows_of(NANO_SHAPE):
        net = Net(row, NANO_SHAPE, weights, inputs, 8)
        assert {k: v.data_ptr() for k, v in net.unet.state_dict().items()} == {
            k: before[k][0] for k in net.unet.state_dict()
        }
        net.step()
    assert weights.keys() == before.keys()
    assert all(torch.equal(v, before[k][1]) for k, v in weights.items())


def test_a_row_is_the_pruned_unet() -> None:
    weights = make_weights(NANO_SHAPE, "cpu", torch.float32)
    inputs = make_inputs(NANO_SHAPE, 8, 2, "cpu", torch.float32)
    fine = next(row for row in rows_of(NANO_SHAPE) if row.name == "fine")
    ours = Net(fine, NANO_SHAPE, weights, inputs, 8).step()
    unet: Any = build_unet(NANO_SHAPE).eval()
    unet.load_state_dict(weights)
    prune_module(unet, load_plan("pgp-nano"))
    with torch.no_grad():
        torch.testing.assert_close(ours, unet(**inputs).sample, rtol=1e-5, atol=1e-5)


def test_no_row_skips_its_guidance() -> None:
    out = {name: net.step() for name, net in nets().items()}
    for plain, guided in (("full", "faithdiff"), ("fine", "fine+peam")):
        assert (out[plain] - out[guided]).abs().max() > 1e-3 * out[plain].abs().max()


def test_rounds_go_over_all_rows_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    step = Net.step
    monkeypatch.setattr(Net, "step", lambda net: order.append(net.row.name) or step(net))
    bench_unet(BenchOptions(shape=NANO_SHAPE, latent=8, repeats=3))
    warm_up_and_rounds, memory = order[:20], order[20:]
    assert warm_up_and_rounds == ROWS * 4
    # Largest UNet first, and with what guides it before without.
    assert memory == ["faithdiff", "full", "coarse", "fine+peam", "fine"]


def test_memory_is_given_up_between_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is alive when a row's peak is taken: its own weights, none of a larger row's."""
    params: list[int] = []
    peak = run.peak_memory

    def counting(device: torch.device, call: Callable[[], object]) -> int:
        import gc

        gc.collect()
        storages = {}
        for thing in gc.get_objects():
            if type(thing) is torch.nn.Parameter and thing.device.type == "cpu" and id(thing) not in held:
                storages[thing.untyped_storage().data_ptr()] = thing.numel()
        params.append(sum(storages.values()))
        return peak(device, call)

    import gc

    # What tests before this one keep, whichever they are.
    others = [t for t in gc.get_objects() if type(t) is torch.nn.Parameter]
    held = {id(t) for t in others}
    monkeypatch.setattr(run, "peak_memory", counting)
    report = bench_unet(BenchOptions(shape=NANO_SHAPE, latent=8, repeats=1))
    unet = {row.name: row.params for row in report.rows}
    peam = unet["fine+peam"] - unet["fine"]
    # PEAM waits for its turn, which is last but one.
    assert params == [unet["full"] + peam, unet["full"] + peam, unet["coarse"] + peam, unet["fine+peam"], unet["fine"]]


def test_peak_of_a_call_on_the_cpu() -> None:
    def allocate() -> None:
        torch.ones(50_000_000)

    peak = peak_memory(CPU, allocate)
    if peak == 0:
        pytest.skip("this system does not say")
    after = peak_memory(CPU, lambda: None)
    assert 190e6 < peak - after < 300e6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_weights(dtype: torch.dtype) -> None:
    with torch.device("meta"):
        module = torch.nn.Sequential(
            torch.nn.Linear(400, 3000), torch.nn.LayerNorm(3000), torch.nn.Conv2d(300, 50, 3)
        ).to(dtype)
    linear, norm, conv = fill(module, "cpu")
    assert {p.dtype for p in module.parameters()} == {dtype}
    assert not any(p.requires_grad for p in module.parameters())
    assert linear.weight.float().std().item() == pytest.approx(400**-0.5, rel=0.01)
    assert conv.weight.float().std().item() == pytest.approx(2700**-0.5, rel=0.01)
    assert (norm.weight == 1).all()
    assert all((m.bias == 0).all() for m in (linear, norm, conv))


def test_injection_is_the_difference_on_the_same_tensors() -> None:
    spec = next(row.guidance for row in rows_of(NANO_SHAPE) if row.name == "fine+peam")
    guide = StepGuidance.make(spec, (36, 36), CPU, torch.float32)
    outputs: list[torch.Tensor] = []

    def timed(call: Callable[[], Any]) -> float:
        outputs.append(call())
        return 1.25 if len(outputs) % 2 == 0 else 1.0

    assert injection_seconds(guide, 2, 5, CPU, timed) == (0.25, 1.0)
    assert outputs[0].shape == (2, 64, 5, 5)
    assert all(torch.equal(a, outputs[0]) for a in outputs)


def test_only_what_runs_in_a_step_has_memory() -> None:
    guide = StepGuidance.make(GuidanceSpec(), (64, 64), CPU, torch.float32)
    real = sum(p.numel() for p in guide.guidance.parameters() if p.device == CPU)
    assert real == guide.params == 1_107_264
    assert {p.device.type for p in guide.guidance.lq_adapter.parameters()} == {"meta"}
    assert [tuple(f.shape) for f in guide.features] == [(1, 320, 4, 4)]


# -- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["--latent", "7"],
        ["--latent", "1025"],
        ["--latent", "x"],
        ["--dtype", "fp8"],
        ["--repeats", "0"],
        ["--batch", "0"],
        ["--shape", "sd15"],
    ],
)
def test_wrong_usage(options: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*NANO, *options])
    assert stop.value.code == 2


def error_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main([*arguments, "--json"]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    assert line.startswith("pgp-diffsr: error: ")
    return line


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta"])
def test_devices_that_cannot_be_used(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert device in error_line(capsys, [*NANO, "--device", device])


@pytest.mark.usefixtures("one_row")
@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_make_smaller(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(net: Net) -> None:
        raise error

    monkeypatch.setattr(Net, "step", fail)
    line = error_line(capsys, NANO)
    assert all(word in line for word in ("out of memory", "--latent", "--dtype", "8 x 8", "float32"))


def test_too_little_memory_is_said_before_it_is_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "available_memory", lambda: 10_000_000_000)
    monkeypatch.setattr(run, "make_weights", lambda *_: pytest.fail("took it"))
    line = error_line(capsys, ["bench", "unet", "--device", "cpu"])
    # 2,567,463,684 numbers of 4 bytes.
    assert "10.3 GB" in line
    assert "--dtype bf16" in line


@pytest.mark.usefixtures("one_row")
def test_a_dtype_that_the_device_lacks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(net: Net) -> None:
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")

    monkeypatch.setattr(Net, "step", fail)
    line = error_line(capsys, [*NANO, "--dtype", "fp16"])
    assert "float16" in line
    assert "--dtype fp32" in line


@pytest.mark.usefixtures("one_row")
def test_overflow_is_not_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Net, "step", lambda net: torch.tensor([float("inf")]))
    assert "overflows" in error_line(capsys, NANO)
