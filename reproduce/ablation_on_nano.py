"""The paper's ablations at nano's size; makes the tables of docs/reproduction.md.

    python reproduce/ablation_on_nano.py runs/nano -o docs/reproduction/ablation

needs the stages full, coarse and fine of ``pgp-diffsr train nano`` in the run folder, from which the rows start. A row
is trained with three seeds, as many steps each; what is done already is not done again, so the command may be stopped
and given again. Rows of Table 5 stand twice: trained with the whole model, as in the paper, and *taught*: alone on the
frozen stage fine, with the LQ through them only (as nano's stage teach), because beside another way in they learn next
to nothing in so few steps. ``--row`` and ``--seed`` choose runs, so that two processes may share the work. At the end,
or with ``--tables``, the tables are printed; ``--sheet FILE`` draws what the first seed's models make of two pictures.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pgp_core.evaluation.ablation import ablated
from pgp_core.evaluation.cases import cases, picture_of
from pgp_core.evaluation.cuts import judge, measure, randomly, read_stage, stage_pipeline
from pgp_core.evaluation.sheet import sheet
from pgp_core.evaluation.summary import HEADS, figure, markdown_table, spread
from pgp_core.files.atomic import replacing
from pgp_core.files.checkpoints import read_safetensors
from pgp_core.planner import by_count, save_plan
from pgp_core.sampling.options import SampleOptions
from pgp_core.training.config import load_config
from pgp_core.training.training_run import train
from pgp_core.unet.plan import load_plan

#: Of fine-tuning, of distillation and of what is taught alone.
STEPS, S1_STEPS, TAUGHT_STEPS = 300, 200, 200
SAMPLED = 10
#: Photographs on the sheet.
SHOWN = ("chelsea", "coffee")
#: Ways in which the LQ comes in.
BOTH, ALONE = "all", "PEAM's site alone"
METRICS = ("psnr_y", "haarpsi", "gmsd", "sharpness")


@dataclass(frozen=True)
class Row:
    """One row of a table: what it is called, from which stage it starts, its plan, what is at PEAM's site, and if
    that alone is trained."""

    label: str
    base: str
    plan: str
    guidance: str = "peam"
    taught: bool = False


ROWS = {
    "full": Row("w/o pruning", "full", ""),
    "coarse": Row("coarse", "coarse", "pgp-nano-coarse"),
    "unfine": Row("unfine: as many decoder blocks at random", "coarse", "random"),
    "fine": Row("fine, full PEAM", "coarse", "report"),
    "add": Row("add", "coarse", "report", "add"),
    "phase": Row("phase change", "coarse", "report", "phase"),
    "convs": Row("fusion only", "coarse", "report", "convs"),
    "taught-none": Row("no LQ at all", "fine", "pgp-nano", "base", taught=True),
    "taught-add": Row("add", "fine", "pgp-nano", "add", taught=True),
    "taught-phase": Row("phase change", "fine", "pgp-nano", "phase", taught=True),
    "taught-convs": Row("fusion only", "fine", "pgp-nano", "convs", taught=True),
    "taught-peam": Row("full PEAM", "fine", "pgp-nano", taught=True),
    "s1": Row("one step on fine", "fine", "report"),
}
TABLES = {
    "Pruning (the paper's Table 4)": ("full", "coarse", "unfine", "fine"),
    "Guidance (Table 5)": ("add", "phase", "convs", "fine"),
    "Guidance, taught alone": ("taught-none", "taught-add", "taught-phase", "taught-convs", "taught-peam"),
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
    row = ROWS[name]
    plan = str(plans(folder, seed)[row.plan]) if row.plan in ("report", "random") else row.plan
    here = folder / f"{name}-{seed}"
    one_step = name == "s1"
    base = folder / f"fine-{seed}" if one_step else folder.parent / row.base
    overrides = [
        f"run.folder={here}",
        f"run.seed={100 + seed}",
        f"run.steps={S1_STEPS if one_step else TAUGHT_STEPS if row.taught else STEPS}",
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
    if not one_step:
        parts = ["lq_adapter", *(["peam"] if row.guidance in ("peam", "convs") else [])]
        parts += [] if row.taught else ["unet", "contexts"]
        drop = 1.0 if row.taught else 0.25
        overrides += [f"model.train={json.dumps(parts)}", f"loss.drop_base={drop}", "ema.decay=0.99"]
    recipe = "nano-s1" if one_step else "nano-teach" if row.taught else "nano-peam"
    if row.guidance == "base":
        # There is nothing to teach.
        figures = {"steps": 0, "seconds": 0.0}
        here = base
    else:
        figures = train(load_config(Path(recipe), overrides), print)
    weights = read_stage(base / "model.safetensors") if one_step else read_stage(here / "model.safetensors")
    s1 = read_safetensors(here / "model.safetensors")[0] if one_step else None
    pipeline, judged = stage_pipeline(weights, None, row.guidance, s1), cases()
    scores = {} if row.taught else {BOTH: judge(pipeline, judged, seed, SAMPLED)}
    if not one_step:
        scores[ALONE] = judge(ablated(pipeline, base=False), judged, seed, SAMPLED)
    data = {
        "row": name,
        "label": row.label,
        "seed": seed,
        "steps": figures["steps"],
        "sampled_steps": 1 if one_step else SAMPLED,
        "unet_params": sum(p.numel() for p in pipeline.unet.parameters()),
        "train_seconds": figures["seconds"],
        "seconds": round(time.monotonic() - started, 1),
        "threads": torch.get_num_threads(),
        "plan": load_plan(plan).to_json()["stacks"] if plan else None,
        "scores": scores,
    }
    out.mkdir(parents=True, exist_ok=True)
    with replacing(result) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def draw(folder: Path, file: Path, rows: Collection[str]) -> None:
    """A contact sheet of the first seed's models; of those that were taught alone, with the LQ through them only."""
    shown = [case for case in cases() if case.name in SHOWN]
    columns = {"HQ": {c.name: c.hq for c in shown}, "LQ": {c.name: c.lq for c in shown}}
    for name, row in ((n, r) for n, r in ROWS.items() if n in rows):
        one_step = name == "s1"
        here, base = folder / f"{name}-0", folder / ("fine-0" if one_step else f"{name}-0")
        if row.guidance == "base":
            base = folder.parent / row.base
        s1 = read_safetensors(here / "model.safetensors")[0] if one_step else None
        pipeline = stage_pipeline(read_stage(base / "model.safetensors"), None, row.guidance, s1)
        options = SampleOptions(steps=SAMPLED, cfg=1.0, seed=0)
        columns[name] = {
            c.name: picture_of(ablated(pipeline, base=not row.taught).restore(c.canvas, options)) for c in shown
        }
    page = sheet(columns)
    with replacing(file) as temporary:
        page.save(temporary, "JPEG", quality=90)


def tables(out: Path) -> str:
    """What there is, as Markdown."""
    runs = [json.loads(p.read_text()) for p in sorted(out.glob("*-*.json"))]
    text = []
    for title, names in TABLES.items():
        for way in (BOTH, ALONE):
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
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="only draw a JPEG of the rows, by default of those that are not taught alone",
    )
    parser.add_argument("--tables", action="store_true", help="only print what there is")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.sheet:
        draw(args.folder / "ablation", args.sheet, args.row or [name for name, row in ROWS.items() if not row.taught])
        return
    if not args.tables:
        for seed in args.seed or (0, 1, 2):
            for name in args.row or ROWS:
                run(name, seed, args.folder / "ablation", args.output)
    print(tables(args.output))  # noqa: T201


if __name__ == "__main__":
    main()
