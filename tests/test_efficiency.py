"""``eval efficiency``: parameters and multiply-accumulates against formulas, and how models are measured together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faithdiff_file
import pytest
import sdxl_files
import torch
from restorer_kit import maker

from pgp_core.bench.efficiency import Efficiency, RowFigures, SizeFigures, Task, figures, measure, measuring
from pgp_core.bench.efficiency.table import lines, markdown
from pgp_core.bench.efficiency.worker import Failed, _Model
from pgp_core.bench.macs import ELSEWHERE, Counted, Counter, Macs
from pgp_core.bench.rows import make_inputs
from pgp_core.bench.text_encoders import text_encoders
from pgp_core.cli import main
from pgp_core.restorers.given import Given
from pgp_core.unet.costs import unet_cost
from pgp_core.unet.count import count
from pgp_core.unet.known import NANO_SHAPE, SDXL_SHAPE
from pgp_core.unet.model import UNet
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import load_plan

# -- multiply-accumulates --------------------------------------------------------------------------------------


@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode])
def test_the_paper_s_unet_counts_as_the_project_s_formula_has_it(grad: Any) -> None:
    """1550.74 G at a latent of 128x128, and attention's own products beside them; nothing is computed."""
    plan = load_plan("pgp-sdxl")
    with torch.device("meta"):
        unet = UNet(SDXL_SHAPE, plan)
    with grad(), Counter({"unet": unet}) as counter:
        unet(**make_inputs(SDXL_SHAPE, 128, 1, "meta", torch.float32), return_dict=False)
    macs, formula = counter.counted.parts["unet"], count(SDXL_SHAPE, plan)
    assert (macs.dense, macs.total) == (formula.macs_conv_linear, formula.macs_total)
    assert round(macs.dense / 1e9, 2) == 1550.74
    assert counter.counted.calls == {"unet": 1}


@pytest.mark.parametrize("batch", [1, 2])
def test_ours_and_diffusers_unet_count_alike(shape: Any, batch: int) -> None:
    inputs = make_inputs(shape, 12, batch, "cpu", torch.float32)
    found = []
    for unet in (UNet(shape), build_unet(shape)):
        with torch.inference_mode(), Counter({"unet": unet.eval()}) as counter:
            unet(**inputs, return_dict=False)
        found.append(counter.counted.parts["unet"])
    cost = unet_cost(shape, None, (12, 12))
    assert found[0] == found[1] == Macs(batch * cost.dense, batch * (cost.macs - cost.dense))


def _conv(inputs: int, outputs: int, positions: int, kernel: int = 3) -> int:
    return inputs * outputs * kernel**2 * positions


def _vae_by_hand(widths: tuple[int, ...], layers: int, positions: int, decodes: bool) -> tuple[int, int]:
    """Of an encoder or a decoder of SDXL's kind; ``positions`` are the picture's pixels."""

    def resnet(a: int, b: int, p: int) -> int:
        return _conv(a, b, p) + _conv(b, b, p) + (_conv(a, b, p, 1) if a != b else 0)

    last, deep = widths[-1], positions // 4 ** (len(widths) - 1)
    middle = 2 * resnet(last, last, deep) + 4 * last * last * deep
    dense = middle
    if decodes:
        p, current = deep, last
        dense += _conv(4, last, p)
        for i, width in enumerate(reversed(widths)):
            for _ in range(layers + 1):
                dense += resnet(current, width, p)
                current = width
            if i < len(widths) - 1:
                p *= 4
                dense += _conv(width, width, p)
        dense += _conv(current, 3, p)
    else:
        p, current = positions, widths[0]
        dense += _conv(3, current, p)
        for i, width in enumerate(widths):
            for _ in range(layers):
                dense += resnet(current, width, p)
                current = width
            if i < len(widths) - 1:
                p //= 4
                dense += _conv(width, width, p)
        dense += _conv(current, 8, p)
    return dense, 2 * deep * deep * last


def test_a_vae_counts_as_by_hand() -> None:
    vae, side = sdxl_files.vae(), 64
    widths, layers = (32, 64, 64, 96), 1
    with torch.inference_mode(), Counter({"vae": vae}) as counter:
        latent = vae.encode(torch.zeros(1, 3, side, side)).latent_dist.mode()
        vae.decode(latent)
    inside = counter.counted.inside["vae"]
    for name, decodes in (("encoder", False), ("decoder", True)):
        dense, attention = _vae_by_hand(widths, layers, side * side, decodes)
        assert inside[name] == Macs(dense, attention), name
    small = (side // 8) ** 2
    assert inside["quant_conv"].dense == _conv(8, 8, small, 1)
    assert inside["post_quant_conv"].dense == _conv(4, 4, small, 1)
    assert counter.counted.parts["vae"].dense == sum(m.dense for m in inside.values())


def test_text_encoders_count_from_their_headers_as_when_they_run(tmp_path: Path) -> None:
    folder = sdxl_files.folder(tmp_path / "sdxl", {})
    found = text_encoders(Given(base=folder))
    assert found is not None
    encoders, macs = sdxl_files.text_encoders(), Macs()
    for encoder in encoders:
        with torch.inference_mode(), Counter({"text": encoder}) as counter:
            encoder(torch.full((1, 12), 79))
        macs.dense += counter.counted.parts["text"].dense
        macs.attention += counter.counted.parts["text"].attention
    assert found.macs == macs and macs.attention > 0
    assert found.parameters == sum(p.numel() for e in encoders for p in e.parameters())
    assert text_encoders(Given(base=folder, conditioning=tmp_path / "saved.safetensors")) is None
    assert text_encoders(Given()) is None


def test_a_call_that_is_broken_off_leaves_nothing_behind() -> None:
    inner = torch.nn.Linear(3, 4)
    outer = torch.nn.Sequential(inner, torch.nn.Linear(5, 6))
    with Counter({"outer": outer}) as counter, pytest.raises(RuntimeError):
        outer(torch.zeros(2, 3))
    assert counter.counted.parts["outer"].dense == 2 * 3 * 4
    with counter:
        torch.zeros(2, 3) @ torch.zeros(3, 4)
    assert counter.counted.parts[ELSEWHERE].dense == 2 * 3 * 4
    assert not inner._forward_hooks and not outer._forward_pre_hooks


# -- whole models ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faithdiff(tmp_path_factory: pytest.TempPathFactory) -> Any:
    module = maker("faithdiff")
    assert module is not None
    return module.make("FaithDiff in steps", tmp_path_factory.mktemp("faithdiff"))


def test_a_full_size_model_s_parts_and_way(faithdiff: Any) -> None:
    model = _Model(Task("faithdiff", faithdiff.given, {"steps": 2}), "cpu", str)
    about = model.about()
    authors = sum(p.numel() for p in faithdiff_file.authors().parameters())
    # Each position attends to itself alone, so queries and keys of both layers, 128 wide, are not read.
    unread = 2 * 2 * (128 * 128 + 128)
    assert about["parameters"] == {
        "unet": sum(p.numel() for p in build_unet(faithdiff_file.NARROW).parameters()),
        "vae": sum(p.numel() for p in sdxl_files.vae().parameters()),
        "guidance": authors - unread,
    }
    assert about["prompts"] == 0 and about["text"] is None and about["settings"]["steps"] == 2
    counted, canvas = model.count(64)
    assert canvas == (64, 64) and counted.calls["unet"] == 2
    # Two steps, each of two prompts of seven tokens.
    cost = unet_cost(faithdiff_file.NARROW, None, (8, 8), tokens=7)
    assert counted.parts["unet"] == Macs(4 * cost.dense, 4 * (cost.macs - cost.dense))
    encoder, decoder = (_vae_by_hand((32, 64, 64, 96), 1, 64 * 64, decodes) for decodes in (False, True))
    assert counted.inside["vae"]["encoder"] == Macs(*encoder) and counted.inside["vae"]["decoder"] == Macs(*decoder)
    # The LQ encoder runs once, the alignment at each call; its attention's products are its own, not nobody's.
    assert counted.inside["guidance"]["lq_encoder"].attention > 0
    assert counted.inside["guidance"]["alignment"].dense > 0
    assert set(counted.parts) == {"unet", "vae", "guidance"}
    assert model.seconds(64) > 0


def test_nano_in_one_step() -> None:
    model = _Model(Task("nano", Given()), "cpu", str)
    counted, canvas = model.count(64)
    # Nano's frame has a border of 32 pixels.
    assert canvas == (128, 128) and counted.calls["unet"] == 1
    tokens = model.restorer.positive.context.shape[1]  # type: ignore[attr-defined]
    plan = load_plan("pgp-nano")
    blocks = {s: e.keep for s, e in plan.stacks.items()}
    cost = unet_cost(NANO_SHAPE, blocks, (32, 32), tokens)
    assert counted.parts["unet"] == Macs(cost.dense, cost.macs - cost.dense)
    assert set(counted.parts) == {"unet", "guidance"}
    assert sum(p.numel() for p in model.restorer.parts()["unet"].parameters()) == cost.params


# -- models together -------------------------------------------------------------------------------------------


class Told:
    """Stands in for processes: each model takes a share of a memory of 1, and says when it is asked."""

    asked: list[tuple[str, str]]

    def __init__(self, shares: dict[str, float]):
        self.shares, self.asked, self.held = shares, [], 0.0

    def __call__(self, task: Task, _device: str, say: Callable[[str], object]) -> Any:
        told = self

        class Worker:
            loaded = False

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                self.close()

            def close(self) -> None:
                told.held -= told.shares[task.name] * self.loaded
                self.loaded = False

            def ask(self, what: str, *arguments: Any) -> Any:
                told.asked.append((task.name, what))
                if what == "load":
                    if task.name == "broken":
                        raise Failed("it is damaged", False)
                    self.loaded = True
                    told.held += told.shares[task.name]
                    return {"what": "a model", "settings": {"steps": 1}, "parameters": {"unet": 10}, "dtypes": {},
                            "prompts": 0, "text": None}  # fmt: skip
                if told.held > 1 and told.shares[task.name] > 0.5:
                    raise Failed("there is not enough memory for it", True)
                if what == "count":
                    return Counted({"unet": Macs(100, 20)}, {}, {"unet": 1}), (64, 64)
                return {"memory": 1000, "seconds": 0.5}[what]

        return Worker()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], Told]:
    def put(shares: dict[str, float]) -> Told:
        made = Told(shares)
        monkeypatch.setattr(measuring, "Worker", made)
        return made

    return put


def _tasks(*names: str) -> list[Task]:
    return [Task(name, Given()) for name in names]


def test_models_are_timed_in_turn(told: Any) -> None:
    there = told({"a": 0.3, "b": 0.3})
    steps: list[tuple[int, int]] = []
    found = measure(_tasks("a", "b"), [64, 128], 3, "cpu", str, lambda *s: steps.append(s))
    assert [x for x in there.asked if x[1] == "seconds"] == [("a", "seconds"), ("b", "seconds")] * 6
    assert [len(row.sizes[64].seconds) for row in found.rows] == [3, 3]
    assert steps[-1] == (20, 20) and [s[0] for s in steps] == list(range(1, 21))


def test_one_without_room_is_measured_alone_and_one_that_is_broken_is_named(told: Any) -> None:
    told({"small": 0.4, "large": 0.9, "broken": 0.0})
    said: list[str] = []
    found = measure(_tasks("small", "broken", "large"), [64], 1, "cpu", said.append)
    small, broken, large = found.rows
    assert not small.alone and small.sizes[64].error is None
    assert broken.error == "it is damaged" and broken.sizes == {}
    assert large.alone and large.sizes[64].seconds == [0.5]
    assert any("large" in line and "alone" in line for line in said)


def test_one_that_fits_nowhere_says_so_and_the_rest_is_measured(told: Any) -> None:
    told({"small": 0.4, "huge": 1.5})
    found = measure(_tasks("small", "huge"), [64], 1, "cpu", str)
    assert found.rows[0].sizes[64].seconds == [0.5]
    assert found.rows[1].sizes[64].error == "there is not enough memory for it"
    text = "\n".join(lines(found))
    assert "huge   there is not enough memory for it" in text


def test_a_model_too_large_for_what_is_free_waits_for_the_others(
    told: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "large.safetensors").write_bytes(bytes(1000))
    there = told({"a": 0.1, "b": 0.1})
    monkeypatch.setattr(measuring, "available_memory", lambda: 1500)
    found = measure([Task("a", Given()), Task("b", Given(model=tmp_path / "large.safetensors"))], [64], 1, "cpu", str)
    assert [row.alone for row in found.rows] == [False, True]
    assert there.asked.index(("b", "load")) > there.asked.index(("a", "seconds"))


def test_a_process_that_is_ended_is_told_from_one_that_failed() -> None:
    worker = measuring.Worker(Task("nano", Given(model=Path("/nowhere.safetensors"))), "cpu", str)
    with worker:
        with pytest.raises(Failed, match="nowhere") as failed:
            worker.ask("load")
        assert not failed.value.memory
        worker._process.kill()
        with pytest.raises(Failed, match="was ended") as ended:
            worker.ask("seconds", 64)
        assert ended.value.memory


# -- figures ---------------------------------------------------------------------------------------------------


def _found() -> Efficiency:
    def size(macs: int, seconds: list[float], memory: int) -> SizeFigures:
        parts = {"unet": Macs(macs, 1), "vae": Macs(2, 3)}
        return SizeFigures((64, 64), Counted(parts, {}, {"unet": 2}), memory, seconds)

    rows = [
        RowFigures("first|row", parameters={"unet": 100, "guidance": 20}, sizes={64: size(1000, [2.0, 1.0, 9.0], 8)}),
        RowFigures("second", parameters={"unet": 50, "text_encoder": 10}, prompts=2, prompt_macs=Macs(7, 1)),
        RowFigures("third", error="it is damaged"),
    ]
    rows[1].sizes = {64: size(494, [1.0, 0.5, 0.75], 0)}
    machine = {"device": "cpu", "device_name": "a processor", "threads": 2, "torch": "2", "pgp_diffsr": "0"}
    return Efficiency(rows, [64], 3, machine)


def test_json_is_plain_and_has_ratios_to_the_first_row() -> None:
    data = json.loads(json.dumps(_found().to_json(), allow_nan=False))
    first, second, third = data["rows"]
    assert first["parameters"] == {"unet": 100, "guidance": 20, "total": 120}
    assert first["text"]["saved"] and not second["text"]["saved"]
    (one,), (two,) = first["results"], second["results"]
    assert one["seconds"] == {"median": 2.0, "min": 1.0, "max": 9.0, "runs": [2.0, 1.0, 9.0]}
    assert one["macs"]["all"] == {"dense": 1002, "attention": 4, "total": 1006}
    assert one["ratios"] == {"parameters": 1, "macs": 1, "seconds": 1, "peak_memory": 1}
    ratios = two["ratios"]
    assert ratios["parameters"] == 0.5 and ratios["seconds"] == 0.375 and ratios["peak_memory"] is None
    assert ratios["macs"] == pytest.approx(500 / 1006)
    assert third["error"] == "it is damaged" and third["results"] == []


def test_the_tables_say_what_there_is() -> None:
    text = markdown(_found())
    table = [line for line in text.splitlines() if line.startswith("|")]
    # Every line of a table has as many cells, that of a model that failed too.
    assert {line.replace("\\|", "").count("|") for line in table if "row" in line or "damaged" in line} == {8, 10}
    assert "first\\|row" in text and "| it is damaged |" in text
    assert "second encodes 2 prompts" in text and "first\\|row has saved conditioning" in text
    assert figures.Efficiency is Efficiency


# -- the command -----------------------------------------------------------------------------------------------


def test_the_command_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a process of its own, as it is used."""
    out = tmp_path / "out"
    assert (
        main(["eval", "efficiency", "--sizes", "64", "--runs", "1", "--device", "cpu", "--json", "-o", str(out)]) == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "efficiency.json").read_text())
    (row,) = printed["rows"]
    (result,) = row["results"]
    assert row["row"] == "nano" and result["unet_calls"] == 1 and result["seconds"]["median"] > 0
    assert result["ratios"]["seconds"] == 1
    assert "| nano |" in (out / "efficiency.md").read_text()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--sizes", "512x512"], "64 to 8192 is possible, not 512x512"),
        (["--sizes", ""], "a size is needed"),
        (["--sizes", "8"], "64 to 8192 is possible, not 8"),
        (["--runs", "0"], "is possible, not 0"),
        (["--model"], "expected one argument"),
        (["--sr", "results"], "unrecognized arguments"),
        (["--model", "nano", "--vae", "x"], "--vae means nothing to nano"),
    ],
)
def test_wrong_usage(options: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["eval", "efficiency", *options])
    assert end.value.code == 2
    assert line in capsys.readouterr().err


def test_a_file_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    assert main(["eval", "efficiency", "--model", str(tmp_path / "text.safetensors")]) == 1
    assert "text.safetensors" in capsys.readouterr().err
    assert main(["eval", "efficiency", "--model", str(tmp_path / "none.safetensors")]) == 1
    assert "none.safetensors" in capsys.readouterr().err
