"""TOML files of runs: what ships is sound, and every mistake is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgp_core.errors import ConfigError
from pgp_core.training.config import READY, load_config, read_config

GOOD = """
[run]
folder = "runs/a"
steps = 10
[model]
kind = "sdxl"
base = "base.safetensors"
[data]
kind = "synthetic"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize("name", sorted(p.stem for p in READY.glob("*.toml")))
def test_those_that_ship_are_sound(name: str) -> None:
    config = load_config(Path(name))
    assert config.run.steps >= 100
    assert (config.model.kind == "nano") == name.startswith("nano-")
    if name.startswith("finetune"):
        assert (config.run.steps, config.optimizer.lr, config.data.patch) == (10_000, 5e-5, 512), "the paper's"
        cards = 4 if "multi" in name else 1
        assert config.data.batch * config.data.accumulation * cards == 128, "the paper's"
        assert config.run.checkpointing
        assert config.run.precision == "bf16"


def test_nano_s_stages_start_from_one_another() -> None:
    names = ["regress", "full", "coarse", "fine", "teach", "peam", "finish", "s1", "s1-2"]
    configs = [load_config(Path(f"nano-{n}")) for n in names]
    assert [c.model.base for c in configs] == ["", *names[:-2], "finish"], "both S1 stages work on the same model"
    assert [(c.s1.first_lora, c.s1.score_model) for c in configs if c.s1] == [("", ""), ("s1", "full")]
    assert sorted(c.run.seed for c in configs) == list(range(9)), "no two see the same noise"
    assert [c.run.folder for c in configs] == [Path("runs/nano") / n for n in names]


def test_defaults_are_faithdiff_s_where_it_has_them(file: Path) -> None:
    config = load_config(file)
    assert (config.optimizer.lr, config.optimizer.betas, config.optimizer.weight_decay) == (5e-5, (0.9, 0.999), 1e-2)
    assert config.loss.kind == "l1"
    assert config.loss.timesteps == (0, 999)
    assert config.s1 is None


def test_paths_count_from_the_file_and_runs_from_here(file: Path) -> None:
    file.write_text(GOOD.replace("[data]", 'sdxl = "folder"\n[data]'))
    config = load_config(file)
    assert config.model.sdxl == file.parent / "folder"
    assert config.run.folder == Path("runs/a")
    over = load_config(file, ["model.sdxl=other", "run.folder=/x"])
    assert over.model.sdxl == Path("other"), "what the command line names counts from the working directory"
    assert over.run.folder == Path("/x")


def test_values_from_the_command_line(file: Path) -> None:
    config = load_config(
        file,
        ["run.steps=99", "optimizer.betas=[0.5, 0.6]", "run.checkpointing=true", "model.train=['peam']",
         "optimizer.lr_factors={'guidance.' = 0.5}", "s1.preset=nano", "model.train=['lora']"],
    )  # fmt: skip
    assert config.run.steps == 99
    assert config.optimizer.betas == (0.5, 0.6)
    assert config.run.checkpointing is True
    assert config.model.train == ("lora",)
    assert config.optimizer.lr_factors == {"guidance.": 0.5}
    assert config.s1 is not None
    assert config.s1.preset == "nano"


@pytest.mark.parametrize(("override", "words"), [
    ("optimizer.learning_rate=1", "[optimizer] has no 'learning_rate'; there are kind, lr"),
    ("optimizer.warm_up=1", "[optimizer] has no 'warm_up'; did you mean warmup?"),
    ("optimiser.lr=1", "a run has no 'optimiser'; did you mean optimizer?"),
    ("run.steps=0", "run.steps must be a whole number of at least 1, not 0"),
    ("run.steps=2.5", "run.steps must be a whole number of at least 1, not 2.5"),
    ("run.steps=true", "run.steps must be a whole number of at least 1, not True"),
    ("optimizer.lr=-1", "optimizer.lr must be a number above 0, not -1"),
    ("optimizer.lr=nan", "optimizer.lr must be a number above 0, not nan"),
    ("optimizer.lr=fast", "optimizer.lr must be a number above 0, not 'fast'"),
    ("optimizer.betas=[0.9]", "optimizer.betas must be a list of 2, each a number of at least 0"),
    ("optimizer.lr_factors={a = -1}", 'optimizer.lr_factors."a" must be a number of at least 0, not -1'),
    ("loss.noise_offset=2", "loss.noise_offset must be a number of at least 0 and at most 1, not 2"),
    ("loss.timesteps=[900, 100]", "loss.timesteps goes from 900 down to 100"),
    ("loss.timesteps=[0, 1000]", "each of loss.timesteps must be a whole number of at least 0 and at most 999"),
    ("run.precision=fp16", 'run.precision must be one of "auto", "float32", "bf16", not \'fp16\''),
    ("run.checkpointing=1", "run.checkpointing must be true or false, not 1"),
    ("model.train=['unets']", 'each of model.train must be one of "unet"'),
    ("model.train=[]", "model.train is empty"),
    ("model.train=['unet', 'lora']", "a LoRA is trained instead of the UNet"),
    ("model.train=['contexts']", "which only nano has"),
    ("model.sdxl=5", "model.sdxl must be a path, not 5"),
    ("model=5", "model must be a table"),
    ("data.kind=folder", "data.folder is missing"),
    ("data.patch=500", "data.patch must be a multiple of 16, not 500"),
    ("model.base=", "model.base is missing"),
    ("s1.stage=1", 'model.train must have "lora"'),
    ("optimizer.warmup=10", "optimizer.warmup must be less than run.steps, 10, not 10"),
    ("run", "--set takes section.key=value, not 'run'"),
    ("run.steps.x=1", "--set run.steps.x"),
])  # fmt: skip
def test_mistakes_are_named(override: str, words: str, file: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(file, [override])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_s1_and_loss_exclude_each_other(file: Path) -> None:
    with pytest.raises(ConfigError, match="a run has one of them"):
        load_config(file, ["s1.stage=1", "loss.kind=l2", "model.train=['lora']"])


@pytest.mark.parametrize("key", ["folder", "steps"])
def test_what_is_missing_is_named(key: str) -> None:
    table: dict[str, Any] = {
        "run": {"folder": "a", "steps": 1}, "model": {"kind": "nano", "guidance": "base"}, "data": {"kind": "synthetic"}
    }  # fmt: skip
    read_config(table)
    del table["run"][key]
    with pytest.raises(ConfigError, match=rf"run\.{key} is missing"):
        read_config(table)
    with pytest.raises(ConfigError, match="model is missing: it must be a table"):
        read_config({"run": {"folder": "a", "steps": 1}, "data": {"kind": "synthetic"}})


@pytest.mark.parametrize(("content", "words"), [
    (b"[run", "is no TOML"), (b"\xff\xfa", "is no TOML"), (None, "there is no file"),
])  # fmt: skip
def test_files_that_are_none(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as error:
        load_config(path)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
