"""The paper's ablations at nano's size; makes the tables of docs/reproduction.md.

    python reproduce/ablation_on_nano.py runs/nano -o docs/reproduction/ablation

needs the stages full, coarse and fine of ``pgp-diffsr train nano`` in the run folder, from which the rows start. A row
is trained with three seeds, the rows of a table for as many steps each; what is done already is not done again, so
the command may be stopped and given again. The rows of Table 5 learn as nano's PEAM does: first what is at its site,
with everything else frozen and the LQ through it alone (as stage teach), then everything together (as stage peam).
``--row`` and ``--seed`` choose runs, so that two processes may share the work. At the end, or with ``--tables``, the
tables are printed; ``--sheet FILE`` draws what the first seed's models make of two photographs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pgp_core.atomic import replacing
from pgp_core.checkpoints import read_safetensors
from pgp_core.evaluation.cases import cases, picture_of
from pgp_core.evaluation.cuts import judge, measure, randomly, read_stage, stage_pipeline
from pgp_core.evaluation.sheet import sheet
from pgp_core.evaluation.summary import HEADS, figure, markdown_table, spread
from pgp_core.plan import load_plan
from pgp_core.planner import by_count, save_plan
from pgp_core.sampling import SampleOptions
from pgp_core.training.config import load_config
from pgp_core.training.training_run import train

#: Of fine-tuning and of distillation; of the site alone and of everything after it.
STEPS, S1_STEPS = 300, 200
TAUGHT_STEPS, TOGETHER_STEPS = 200, 100
SAMPLED = 10
#: Photographs on the sheet.
SHOWN = ("chelsea", "coffee")
#: Ways in which the LQ comes in: both, PEAM's site alone, and that before anything else has learnt beside it.
BOTH, ALONE, ALONE_FIRST = "all", "PEAM's site alone", "PEAM's site alone, nothing else trained"
METRICS = ("psnr_y", "haarpsi", "gmsd", "sharpness")


@dataclass(frozen=True)
class Row:
    """One row of a table: what it is called, from which stage it starts, its plan, what is at PEAM's site, and if
    that learns alone first."""

    label: str
    base: str
    plan: str
    guidance: str = "peam"
    taught: bool = False


ROWS = {
    "full": Row("w/o pruning", "full", ""),
    "coarse": Row("coarse", "coarse", "pgp-nano-coarse"),
    "unfine": Row("unfine: as many decoder blocks at random", "coarse", "random"),
    "fine": Row("fine", "coarse", "report"),
    "add": Row("add", "fine", "pgp-nano", "add", taught=True),
    "phase": Row("phase change", "fine", "pgp-nano", "phase", taught=True),
    "convs": Row("fusion only", "fine", "pgp-nano", "convs", taught=True),
    "peam": Row("full PEAM", "fine", "pgp-nano", taught=True),
    "s1": Row("one step on fine", "fine", "report"),
}
TABLES = {
    "Pruning (the paper's Table 4)": ("full", "coarse", "unfine", "fine"),
    "Guidance (Table 5)": ("add", "phase", "convs", "peam"),
    "One step and many": ("fine", "s1"),
}


def plans(folder: Path, seed: int) -> dict[str, Path]:
    """The two plans that are made here: by a report of stage coarse, and at random for each seed."""
    made = folder / "plans"
    made.mkdir(parents=True, exist_ok=True)
    report, blind = made / "report.json", made / f"random-{seed}.json"
    base = load_plan("pgp-nano-coarse")
    if not report.exists():
        found = measure(read_stage(folder.parent / "coarse" / "model.safetensors"), "coarse")
        found.save(made / "redundancy.json")
        save_plan(by_count(base, found, 2, name="by-report"), report)
    if not blind.exists():
        removed = load_plan(str(report)).removed - base.removed
        save_plan(randomly(base, removed, random.Random(seed).randrange(2**31)), blind)
    return {"report": report, "random": blind}


def run(name: str, seed: int, folder: Path, out: Path) -> None:
    """Train and judge one row with one seed, unless its figures are there."""
    result = out / f"{name}-{seed}.json"
    if result.exists():
        return
    started = time.monotonic()
    row, made = ROWS[name], plans(folder, seed)
    plan = str(made.get(row.plan, row.plan))
    here = folder / f"{name}-{seed}"
    one_step = name == "s1"
    base = folder / f"fine-{seed}" if one_step else folder.parent / row.base
    site = ["peam"] if row.guidance in ("peam", "convs") else []

    def trained(recipe: str, base: Path, here: Path, steps: int, *others: str) -> dict[str, Any]:
        overrides = [
            f"run.folder={here}",
            f"run.seed={100 + seed}",
            f"run.steps={steps}",
            "run.save_every=50",
            "run.sample_every=0",
            f"model.base={base / 'model.safetensors'}",
            f"model.guidance={row.guidance}",
            f"model.plan={plan}",
            f"data.cache={folder.parent / 'pictures.npy'}",
            "data.batch=16",
            "data.patch=64",
            "optimizer.warmup=50",
        ]
        return train(load_config(Path(recipe), [*overrides, *others]), print)

    judged, scores, done = cases(), {}, []
    if one_step:
        done.append(trained("nano-s1", base, here, S1_STEPS))
        weights, s1 = read_stage(base / "model.safetensors"), read_safetensors(here / "model.safetensors")[0]
    else:
        s1, average = None, "ema.decay=0.99"
        if row.taught:
            parts = f"model.train={json.dumps(['lq_adapter', *site])}"
            done.append(trained("nano-teach", base, here / "taught", TAUGHT_STEPS, parts, average))
            base = here / "taught"
            alone = stage_pipeline(read_stage(base / "model.safetensors"), None, row.guidance)
            scores[ALONE_FIRST] = judge(alone, judged, seed, SAMPLED, base=False)
        parts = f"model.train={json.dumps(['unet', 'lq_adapter', 'contexts', *site])}"
        steps = TOGETHER_STEPS if row.taught else STEPS
        done.append(trained("nano-peam", base, here, steps, parts, "loss.drop_base=0.25", average))
        weights = read_stage(here / "model.safetensors")
    pipeline = stage_pipeline(weights, None, row.guidance, s1)
    scores[BOTH] = judge(pipeline, judged, seed, SAMPLED)
    if not one_step:
        scores[ALONE] = judge(pipeline, judged, seed, SAMPLED, base=False)
    data = {
        "row": name,
        "label": row.label,
        "seed": seed,
        "steps": sum(figures["steps"] for figures in done),
        "sampled_steps": 1 if one_step else SAMPLED,
        "unet_params": done[-1]["unet_params"],
        "train_seconds": round(sum(figures["seconds"] for figures in done), 1),
        "seconds": round(time.monotonic() - started, 1),
        "threads": torch.get_num_threads(),
        "plan": load_plan(plan).to_json()["stacks"] if plan else None,
        "scores": scores,
    }
    out.mkdir(parents=True, exist_ok=True)
    with replacing(result) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def draw(folder: Path, file: Path) -> None:
    """A contact sheet of the first seed's models."""
    shown = [case for case in cases() if case.name in SHOWN]
    columns = {"HQ": {c.name: c.hq for c in shown}, "LQ": {c.name: c.lq for c in shown}}
    for name, row in ROWS.items():
        one_step = name == "s1"
        here, base = folder / f"{name}-0", folder / ("fine-0" if one_step else f"{name}-0")
        s1 = read_safetensors(here / "model.safetensors")[0] if one_step else None
        pipeline = stage_pipeline(read_stage(base / "model.safetensors"), None, row.guidance, s1)
        options = SampleOptions(steps=SAMPLED, cfg=1.0, seed=0)
        columns[name] = {c.name: picture_of(pipeline.restore(c.canvas, options)) for c in shown}
    page = sheet(columns)
    with replacing(file) as temporary:
        page.save(temporary, "JPEG", quality=90)


def tables(out: Path) -> str:
    """What there is, as Markdown."""
    runs = [json.loads(p.read_text()) for p in sorted(out.glob("*-*.json"))]
    text = []
    for title, names in TABLES.items():
        for way in (BOTH, ALONE, ALONE_FIRST):
            rows = []
            for name in names:
                own = [r for r in runs if r["row"] == name and way in r["scores"]]
                if own:
                    size = f"{own[0]['unet_params'] / 1e6:.2f} M"
                    rows.append([own[0]["label"], str(len(own)), size, *(_figure(own, way, m) for m in METRICS)])
            if rows:
                heads = ["", "seeds", "UNet", *(HEADS[m][0] for m in METRICS)]
                text.append(f"### {title}{'' if way == BOTH else ', the LQ through ' + way}\n\n")
                text.append(markdown_table(heads, rows) + "\n")
    return "".join(text)


def _figure(runs: list[Mapping[str, Any]], way: str, metric: str) -> str:
    means = [statistics.fmean(s[metric] for s in r["scores"][way].values()) for r in runs]
    return figure(metric, statistics.fmean(means), spread(means))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="run folder of pgp-diffsr train nano")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--row", choices=list(ROWS), action="append", help="all by default")
    parser.add_argument("--seed", type=int, action="append", help="0, 1 and 2 by default")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="only draw a JPEG of the models that there are")
    parser.add_argument("--tables", action="store_true", help="only print what there is")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.sheet:
        draw(args.folder / "ablation", args.sheet)
        return
    if not args.tables:
        for seed in args.seed or (0, 1, 2):
            for name in args.row or ROWS:
                run(name, seed, args.folder / "ablation", args.output)
    print(tables(args.output))  # noqa: T201


if __name__ == "__main__":
    main()
