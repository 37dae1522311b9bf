"""docs/training.md against the code: every key with its default, every preset's weights, what commands it names."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from pgp_core.cli import build_parser
from pgp_core.training.config import RunConfig, load_config
from pgp_core.training.s1_config import PRESETS, S1LossConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
HINTS = typing.get_type_hints(RunConfig)
SECTIONS = {
    f.name: next(k for k in (HINTS[f.name], *typing.get_args(HINTS[f.name])) if dataclasses.is_dataclass(k))
    for f in dataclasses.fields(RunConfig)
    if f.init
}


def rows(section: str) -> dict[str, str]:
    """Keys and defaults in the table of a section."""
    part = TEXT.split(f"### `[{section}]`\n")[1].split("\n### ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \| .+ \|$", part, re.M))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_there_with_its_default(section: str) -> None:
    told = rows(section)
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(SECTIONS[section])
    assert list(told) == [f.name for f in fields]
    for f in fields:
        made = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if made is dataclasses.MISSING:
            assert told[f.name] == "required"
        elif told[f.name] == "not set":
            assert made in (None, "", (), {}), f.name
        else:
            value = tomllib.loads(f"x = {told[f.name].strip('`')}")["x"]
            assert (tuple(value) if isinstance(value, list) else value) == made, f.name


def test_the_presets_weights() -> None:
    for preset, stages in PRESETS.items():
        for number in range(1, len(stages) + 1):
            (line,) = re.findall(rf"^\| `{preset}` \| {number} \| (.+) \|$", TEXT, re.M)
            l1, l2, edges, perceptual, measure, csd, guidance, shares, null = (c.strip() for c in line.split("|"))
            loss = S1LossConfig(preset=preset, stage=number).resolved()
            told = [float(x or 0) for x in (l1, l2, edges, perceptual, csd, null)]
            assert told == [loss.l1, loss.l2, loss.edges, loss.perceptual, loss.csd, loss.null_prompt]
            assert measure == (loss.measure if loss.perceptual else "")
            if loss.csd:
                assert float(guidance) == loss.csd_guidance
                assert [float(x) for x in shares.split(",")] == [loss.csd_from, loss.csd_to]


def test_the_commands_are_understood() -> None:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.S)).replace("\\\n", " ")
    commands = [line.split("pgp-diffsr ", 1)[1] for line in blocks.splitlines() if "pgp-diffsr " in line]
    assert len(commands) >= 10
    for command in commands:
        args = build_parser().parse_args(shlex.split(command, comments=True))
        if getattr(args, "action", None) in ("finetune", "distill"):
            load_config(Path(args.config.stem), args.overrides)
