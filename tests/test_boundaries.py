"""Malformed files, by what is wrong with them: each is that file's error, in one line that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutations.files import Raw
from toy_runs import batches, toy_runner

from pgp_core.errors import CheckpointError, ConfigError, PGPError, PlanError, ReportError, TrainingError
from pgp_core.files.checkpoints import read_safetensors, write_safetensors
from pgp_core.files.safetensors_stream import write_streaming
from pgp_core.files.weights import open_weights
from pgp_core.guidance.module import METADATA_KEY
from pgp_core.guidance.spec import GuidanceSpec
from pgp_core.redundancy.report import load_report
from pgp_core.restorers.nano import model as nano
from pgp_core.training.config import load_config, named_paths
from pgp_core.training.export import export_nano
from pgp_core.training.journal import Journal, read_rows
from pgp_core.training.painting import paint_set
from pgp_core.training.state import read_step
from pgp_core.unet.plan import load_plan

DIGITS, DEEP = "9" * 5000, "[" * 100_000
#: What any JSON reader must get over.
JSON = {"digits": DIGITS, "deep": DEEP, "half": '{"format": "pgp', "nothing": "", "bytes": "\ud800", "null": "null"}


def refused(kind: type[PGPError], action: Callable[[], Any], *words: str) -> str:
    with pytest.raises(PGPError) as error:
        action()
    text = str(error.value)
    assert type(error.value) is kind, repr(error.value)
    assert "\n" not in text and len(text) < 900 and all(w in text for w in words), text
    return text


@pytest.mark.parametrize("what", JSON)
@pytest.mark.parametrize(("kind", "load"), [(PlanError, load_plan), (ReportError, load_report)], ids=["plan", "report"])
def test_json_files(kind: type[PGPError], load: Callable[[Path], Any], what: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(JSON[what].encode("utf-8", "surrogatepass"))
    refused(kind, lambda: load(path), "file.json")
    refused(kind, lambda: load(tmp_path / "a\0b"))


@pytest.mark.parametrize("what", JSON)
def test_json_in_metadata(what: str) -> None:
    refused_text = JSON[what]
    with pytest.raises(PGPError) as error:
        GuidanceSpec.from_metadata({METADATA_KEY: refused_text}, "some file")
    assert "some file" in str(error.value) and len(str(error.value)) < 900


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"run = {DIGITS}", "is no TOML"),
        (f"[run]\nsteps = {DIGITS}", "is no TOML"),
        ("x = " + DEEP, "is no TOML"),
        ("\0", "is no TOML"),
        ('[run]\nfolder = "a\\u0000b"\nsteps = 1', "run.folder must be a path"),
        (f'[run]\nfolder = "a"\nsteps = {2**70}', "run.steps must be a whole number"),
        (f'[run]\nfolder = "a"\nsteps = 1\nseed = {2**64}', "run.seed must be a whole number"),
        ("[run]\n" + "x" * 100_000 + " = 1", "[run] has no"),
        ('[run]\nfolder = "a"\nsteps = 1e400', "run.steps must be a whole number"),
    ],
    ids=range(9),
)
def test_toml_files(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    refused(ConfigError, lambda: load_config(path), words, "run.toml")


def test_a_path_that_no_system_has() -> None:
    refused(ConfigError, lambda: load_config(Path("a\0b")))
    for read in (read_safetensors, lambda p: open_weights(p).__enter__()):
        refused(CheckpointError, lambda read=read: read(Path("a\0b")))


# -- training ------------------------------------------------------------------------------------------------

STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "step is a text": lambda s: s.update(step="7"),
    "step is true": lambda s: s.update(step=True),
    "step is below zero": lambda s: s.update(step=-1),
    "seconds are no number": lambda s: s.update(seconds=float("nan")),
    "window is a number": lambda s: s.update(window=3),
    "window holds texts": lambda s: s.update(window=["a"]),
    "weights are a list": lambda s: s.update(weights=[torch.zeros(1)]),
    "weights are numbers": lambda s: s.update(weights=dict.fromkeys(s["weights"], 1.0)),
    "a weight of another shape": lambda s: s["weights"].update({next(iter(s["weights"])): torch.zeros(3)}),
    "no weights": lambda s: s.pop("weights"),
    "no optimizer": lambda s: s.pop("optimizer"),
    "optimizer without groups": lambda s: s["optimizer"].pop("param_groups"),
    "optimizer of other groups": lambda s: s["optimizer"]["param_groups"].append({"params": [9]}),
    "memory of another shape": lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)),
    "memory that is incomplete": lambda s: s["optimizer"]["state"][0].pop("exp_avg_sq"),
    "memory that is a text": lambda s: s["optimizer"]["state"].update({0: "x"}),
    "average of another shape": lambda s: s["ema"].update({next(iter(s["ema"])): torch.zeros(3)}),
    "average that is missing": lambda s: s.pop("ema"),
    "average without names": lambda s: s.update(ema={}),
    "signature is a list": lambda s: s.update(signature="[1]"),
    "signature of endless digits": lambda s: s.update(signature=DIGITS),
    "signature too deep": lambda s: s.update(signature=DEEP),
    "format is another": lambda s: s.update(format=99),
}


@pytest.mark.parametrize("what", STATES)
def test_checkpoints(what: str, tmp_path: Path) -> None:
    toy_runner(tmp_path, run_steps=3).run(batches, progress=False)
    path = tmp_path / "state.pt"
    state = torch.load(path, weights_only=True)
    STATES[what](state)
    torch.save(state, path)
    refused(CheckpointError, lambda: toy_runner(tmp_path, run_steps=3).resume(), "state.pt")


def test_a_checkpoint_cannot_change_a_run_s_settings(tmp_path: Path) -> None:
    whole = toy_runner(tmp_path / "a", run_steps=6)
    whole.run(batches, progress=False)
    toy_runner(tmp_path / "b", run_steps=3).run(batches, progress=False)
    path = tmp_path / "b" / "state.pt"
    state = torch.load(path, weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        group.update(lr="much", weight_decay=1e9, factor=None, betas=(2, 3), foreach="x")
    torch.save(state, path)
    gone_on = toy_runner(tmp_path / "b", run_steps=3)
    gone_on.resume()
    own = toy_runner(tmp_path / "c", run_steps=3).optimizer.param_groups[0]
    assert {k: v for k, v in gone_on.optimizer.param_groups[0].items() if k != "params"} == {
        k: v for k, v in own.items() if k != "params"
    }


def test_logs(tmp_path: Path) -> None:
    rows = [
        '{"step": 1, "loss": 0.5}',
        "nonsense",
        DIGITS,
        DEEP,
        '{"step": true}',
        '{"step": "2"}',
        "[1]",
        '{"step": 2}',
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(rows) + "\n" + '{"step": 3, "lo', encoding="utf-8")
    assert [r["step"] for r in read_rows(path)] == [1, 2]
    Journal(path, 2).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_painted_pictures(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    for content in (b"", b"a photograph of somebody's", np.lib.format.magic(1, 0) + b"\xff\xff"):
        path.write_bytes(content)
        refused(TrainingError, lambda: paint_set(str(path), 1, 0, 32), "data.cache")
        assert path.read_bytes() == content, "what is none of ours is not painted over"
    np.save(path.with_suffix(".npy"), np.zeros(3))
    refused(TrainingError, lambda: paint_set(str(path.with_suffix(".npy")), 1, 0, 32))
    path.unlink()
    # Without NumPy's ending, which it would put after the name by itself.
    first = paint_set(str(path), 1, 0, 32)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "cache.npy"]
    assert np.array_equal(paint_set(str(path), 1, 0, 32), first)


def test_a_dry_run_looks_at_any_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    assert read_step(path) == 0
    for content in (b"", b"PK\x03\x04", b"text"):
        path.write_bytes(content)
        assert read_step(path) == 0
    torch.save({"step": 7}, path)
    assert read_step(path) == 7


def test_figures_that_are_shared_hold_names(tmp_path: Path) -> None:
    data = {"data": {"folder": "/home/somebody/pictures", "size": 3}, "model": {"base": "C:\\Users\\somebody\\m.bin"},
            "run": {"folder": "runs/x", "list": ["/a/b", "~/c.pt", "c/d"]}}  # fmt: skip
    assert named_paths(data) == {
        "data": {"folder": "pictures", "size": 3},
        "model": {"base": "m.bin"},
        "run": {"folder": "runs/x", "list": ["b", "c.pt", "c/d"]},
    }


def test_a_stage_s_figures_that_are_damaged(tmp_path: Path) -> None:
    (tmp_path / "finish").mkdir()
    weights, _ = read_safetensors(nano.FOLDER / nano.UNET_FILE)
    del weights
    (tmp_path / "finish" / "model.safetensors").write_bytes(b"no model")
    refused(CheckpointError, lambda: export_nano(tmp_path, tmp_path / "out"), "model.safetensors")


# -- safetensors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [
    '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    '{"__metadata__":{"x":"1","x":"2"},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    '{"a":{"dtype":"U8","shape":[4],"shape":[2],"data_offsets":[0,4]}}',
])  # fmt: skip
def test_a_name_that_stands_in_a_header_twice(header: str, tmp_path: Path) -> None:
    path = tmp_path / "twice.safetensors"
    Raw({"a": ("U8", [4], bytes(4))}).write(path, text=header.encode() + b" " * (-len(header) % 8))
    refused(CheckpointError, lambda: read_safetensors(path), "twice")
    refused(CheckpointError, lambda: open_weights(path).__enter__(), "twice")


def test_what_no_reader_would_take_is_not_written(tmp_path: Path) -> None:
    path, tensor = tmp_path / "x.safetensors", torch.zeros(2)
    for metadata in ({"half \ud83d": "x"}, {"x": "half \ud83d"}, {"x": "y" * 100_000_001}):
        refused(
            CheckpointError,
            lambda m=metadata: write_streaming(path, {"a": (2,)}, torch.float32, lambda _: tensor, m),
        )
        if "y" not in str(metadata):
            refused(CheckpointError, lambda m=metadata: write_safetensors(path, {"a": tensor}, m))
    assert not path.exists()
