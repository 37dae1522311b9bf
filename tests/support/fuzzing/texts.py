"""Plans, reports, configurations: texts that people and programs write."""

from __future__ import annotations

import random
import re
from pathlib import Path

from pgp_core.files import diffusers_folder
from pgp_core.planner import by_budget, by_thresholds, coarse, dial, save_plan
from pgp_core.planner.describe import headline, kept
from pgp_core.redundancy.report import Report, load_report
from pgp_core.training.config import load_config
from pgp_core.training.sources import make_degradation
from pgp_core.unet.known import TOPOLOGIES
from pgp_core.unet.plan import PrunePlan, load_plan

from . import hostile
from .prepared import Prepared


def plan(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A plan's file: read, shown, written again."""
    path = folder / "plan.json"
    path.write_bytes(hostile.written(hostile.text_of(rng, hostile.changed(rng, prepared.plan))))
    found = load_plan(path)
    headline(found), kept(found), found.sha256()
    save_plan(found, folder / "again.json")
    assert load_plan(folder / "again.json") == found
    if found.topology in TOPOLOGIES:
        found.check_model(dict.fromkeys(TOPOLOGIES[found.topology].depths, (0, 1)))


def report(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A report's file: read, written again, planned by."""
    path = folder / "report.json"
    path.write_bytes(hostile.written(hostile.text_of(rng, hostile.changed(rng, prepared.report))))
    found: Report = load_report(path)
    found.save(folder / "again.json")
    topology = TOPOLOGIES.get(found.topology, TOPOLOGIES["pgp-nano"])
    which = rng.randrange(4)
    made: PrunePlan
    if which == 0:
        made = coarse(found, topology, "report")
    elif which == 1:
        made = dial(found, rng.choice((0.0, 0.3, 1.0)))
    elif which == 2:
        made = by_thresholds(coarse(found, topology, "report"), found, 1.0, 5.0)
    else:
        made = by_budget(coarse(found, topology, "first"), found, rng.choice((1, 10**6, None)), 10**12)
    made.dumps()


_VALUE = re.compile(r"(?m)^(\w+ *= *)(.+)$")
_TOML = (
    "nan", "inf", "-inf", "9" * 5000, "9223372036854775808", "-1", "0", "1e999", '"\\u0000"', '""', '"\\u001b[31m"',
    "[]", "[[[]]]", "{}", "{a = 1}", "true", "1979-05-27", "07:32:00", '"~nobody-at-all/x"', "[1, 2, 3, 4]", '["x"]',
    "'''", "=", "0x7fffffffffffffff", "[" * 3000, '"' + "x" * 5000 + '"', '"../../x"', "2 ** 3", "1_000_000_000_000",
)  # fmt: skip


def toml(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A run's configuration."""
    text = rng.choice(prepared.configs)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        lines = list(_VALUE.finditer(text))
        how = rng.randrange(5)
        m = rng.choice(lines) if lines else None
        if how < 3 and m is not None:
            text = text[: m.start(2)] + rng.choice(_TOML) + text[m.end(2) :]
        elif how == 3:
            at = rng.randrange(len(text))
            odd = ("[run]\n", "[a.b.c]\n", "x = 1\n", "\0", "\ud800", '"', "[", "[[run]]\n", "\ufeff")
            text = text[:at] + rng.choice(odd) + text[at:]
        elif m is not None:
            text = text[: m.start()] + rng.choice(("x" * 9000, "steps", '""', "a.b")) + " = 1" + text[m.end() :]
    data = hostile.written(text)
    if rng.randrange(8) == 0:
        data = hostile.spoilt(rng, data)
    path = folder / "run.toml"
    path.write_bytes(data)
    config = load_config(path)
    config.to_json()
    make_degradation(config)


def overrides(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """``--set``."""
    keys = ("run.steps", "run.folder", "optimizer.lr", "data.folder", "model.train", "run.seed", "loss.timesteps",
            "data.degradation", "optimizer.lr_factors", "s1.stage", "run", "x" * 9000, "a.b.c", "")  # fmt: skip
    texts = [f"{rng.choice(keys)}{rng.choice(('=', '=', '=', ''))}{rng.choice((*_TOML, *hostile.TEXTS))}"
             for _ in range(rng.randint(1, 3))]  # fmt: skip
    path = folder / "run.toml"
    path.write_text(prepared.configs[0])
    load_config(path, texts).to_json()


def folder(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A component of a diffusers folder: settings and an index."""
    (folder / "vae").mkdir()
    text = hostile.text_of(rng, hostile.changed(rng, prepared.vae_config))
    (folder / "vae" / "config.json").write_bytes(hostile.written(text))
    diffusers_folder.config(folder / "vae")
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    name = rng.choice(("diffusion_pytorch_model.safetensors.index.json", "model-00001-of-00002.safetensors"))
    (folder / "vae" / name).write_bytes(hostile.written(hostile.text_of(rng, hostile.changed(rng, index))))
    diffusers_folder.weight_files(folder / "vae")
