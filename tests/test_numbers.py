"""Numbers from outside: NaN, infinity, the wrong kind and too many digits are refused wherever they come in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgp_core.bench.run import BenchOptions
from pgp_core.cli import main
from pgp_core.errors import PGPError, PlanError
from pgp_core.files import json_format
from pgp_core.images.sizes import Size
from pgp_core.number import number
from pgp_core.sampling.one_step import Dial
from pgp_core.sampling.options import SampleOptions
from pgp_core.tiling import Groups, Split, Tiling
from pgp_core.training.config import read_config
from pgp_core.training.s1_config import S1LossConfig
from pgp_core.unet.known import SDXL
from pgp_core.unet.plan import PrunePlan, load_plan

NAN, INF = float("nan"), float("inf")
#: None of these is a number that a setting can have.
NONE = (NAN, INF, -INF, 10**5000, -(10**5000), True, "1", None, 1 + 0j, torch.tensor(NAN))


# -- the function ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", NONE, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_no_number_in_the_range_is_refused_in_one_short_line(value: Any, whole: bool) -> None:
    with pytest.raises(PlanError) as error:
        number(value, "the width is", 0, 10, whole=whole, unit="pixels", error=PlanError)
    message = str(error.value)
    assert message.startswith("the width is ") and "0 to 10 pixels, not " in message
    assert "\n" not in message and len(message) < 120


@pytest.mark.parametrize("value", [0, 10, 3, np.int64(4), np.float32(0.5), 2.5])
def test_numbers_in_the_range_pass(value: Any) -> None:
    number(value, "x is", 0, 10)


def test_ranges_have_their_ends() -> None:
    number(2**64 - 1, "x is", 0, 2**64 - 1, whole=True)
    number(1e300, "x is", 0)
    for bad, limits in ((0, {"above": 0, "high": 1}), (-1, {"low": 0}), (2, {"high": 1}), (INF, {"low": 0}), (NAN, {})):
        with pytest.raises(PGPError):
            number(bad, "x is", **limits)  # type: ignore[arg-type]
    with pytest.raises(PGPError, match="whole number"):
        number(1.0, "x is", 0, 2, whole=True)


# -- options ---------------------------------------------------------------------------------------------------


def _groups(**options: Any) -> Groups:
    defaults = {"difficulty": torch.zeros(1, 1, 8, 8), "y0": torch.zeros(1, 4, 8, 8), "split": Split()}
    return Groups(**{**defaults, "starts": (1.0, 2.0), **options})  # type: ignore[arg-type]


OPTIONS: dict[str, Callable[[Any], Any]] = {
    "scale": lambda v: Size(scale=v),
    "width": lambda v: Size(width=v),
    "height": lambda v: Size(height=v),
    "longest": lambda v: Size(longest=v),
    **{
        f"sampling's {name}": lambda v, name=name: SampleOptions(**{name: v})
        for name in ("steps", "cfg", "seed", "denoise", "strength", "start_percent", "end_percent")
    },
    "pixel": lambda v: Dial(pixel=v),
    "semantic": lambda v: Dial(semantic=v),
    "tile": lambda v: Tiling(tile=v),
    "overlap": lambda v: Tiling(overlap=v),
    "easy": lambda v: Split(easy=v),
    "hard by value": lambda v: Split(hard=v, by="value"),
    "common": lambda v: _groups(common=v),
    "latent": lambda v: BenchOptions(latent=v),
    "repeats": lambda v: BenchOptions(repeats=v),
    **{
        f"S1's {name}": lambda v, name=name: S1LossConfig(**{name: v})
        for name in ("l1", "csd", "csd_guidance", "csd_from", "null_prompt", "timestep")
    },
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", [NAN, INF, -INF, -(10**5000), "1"], ids=["nan", "inf", "-inf", "digits", "text"])
def test_no_option_takes_what_is_no_number(name: str, value: Any) -> None:
    with pytest.raises(PGPError) as error:
        OPTIONS[name](value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", [-1, 2**64, 10**5000, 1.5], ids=["negative", "65 bits", "digits", "half"])
def test_seeds_are_those_that_pytorch_takes(seed: Any) -> None:
    SampleOptions(seed=2**64 - 1)
    with pytest.raises(PGPError, match="seed"):
        SampleOptions(seed=seed)


def test_tiles_that_begin_at_no_number_are_refused() -> None:
    for bad in ({"starts": (NAN, 1.0)}, {"starts": (0.5, NAN)}, {"difficulty": torch.full((1, 1, 8, 8), NAN)}):
        with pytest.raises(PGPError, match="NaN"):
            _groups(**bad)


# -- files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[-1e400]"])
def test_json_has_finite_numbers_only(text: str) -> None:
    assert json.loads(text) is not None, "which Python's own reader takes"
    with pytest.raises(ValueError):
        json_format.loads(text)
    assert json_format.loads('[1, -2.5e3, "NaN"]') == [1, -2500.0, "NaN"]


def test_a_plan_with_nan_is_no_plan(tmp_path: Path) -> None:
    data = PrunePlan.full(SDXL).to_json()
    data["provenance"] = {"thresholds": {"tau_cos": NAN}}
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(PlanError, match=r"plan\.json is not valid JSON: NaN"):
        load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("value", [NAN, INF, 10**400, -(10**400)], ids=["nan", "inf", "digits", "-digits"])
@pytest.mark.parametrize(
    ("section", "key"),
    [("run", "steps"), ("run", "seed"), ("optimizer", "lr"), ("loss", "noise_offset"), ("ema", "decay")],
)
def test_a_configuration_s_numbers_are_finite(section: str, key: str, value: Any) -> None:
    table: dict[str, Any] = {
        "run": {"folder": "x", "steps": 1},
        "model": {"kind": "nano", "guidance": "peam"},
        "data": {"kind": "synthetic"},
    }
    read_config(json.loads(json.dumps(table)))
    table.setdefault(section, {})[key] = value
    with pytest.raises(PGPError, match=rf"{section}\.{key} must be") as error:
        read_config(table)
    assert len(str(error.value)) < 200


# -- the command line ------------------------------------------------------------------------------------------

DIGITS = "9" * 5000


@pytest.mark.parametrize(
    "arguments",
    [
        *(["upscale", "a.png", "-o", "out", option, value]
          for option in ("--scale", "--cfg", "--denoise", "--strength") for value in ("nan", "inf", DIGITS)),
        *(["upscale", "a.png", "-o", "out", option, DIGITS]
          for option in ("--width", "--steps", "--quality", "--tile", "--overlap")),
        *(["upscale", "a.png", "-o", "out", "--seed", value] for value in ("-1", str(2**64), "1.5", DIGITS)),
        ["upscale", "a.png", "-o", "out", "--model", "m", "--semantic", "nan"],
        ["analyze", "--images", "a.png", "-o", "r.json", "--cfg", "nan"],
        ["analyze", "--images", "a.png", "-o", "r.json", "--limit", "-3"],
        ["train", "finetune", "x.toml", "--threads", "-1"],
        ["train", "nano", "--threads", "0"],
        ["train", "nano", "--export-cfg", "inf"],
        ["train", "sheet", "folder", "-o", "s.png", "--seed", DIGITS],
        ["plan", "build", "-o", "p.json", "--method", "dial", "--amount", "nan"],
        ["plan", "build", "-o", "p.json", "--method", "fine", "--max-params", DIGITS],
        ["guidance", "init", "-o", "g.safetensors", "--seed", str(2**64)],
        ["eval", "quality", "-o", "out", "--seeds", "0"],
    ],
    ids=lambda a: " ".join(x[:9] for x in (a[0], *a[-2:])),
)  # fmt: skip
def test_the_command_line_takes_no_such_number(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: argument" in last and arguments[-2] in last
    assert len(last) < 250 and "Traceback" not in last
    assert not list(tmp_path.iterdir())
