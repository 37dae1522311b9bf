"""What cutting blocks costs nano before any healing; makes two tables of docs/reproduction.md.

    python reproduce/cuts_on_nano.py runs/nano -o docs/reproduction

needs the stages full and coarse of ``pgp-diffsr train nano`` in the run folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tqdm import tqdm

from pgp_core.evaluation.cuts import cuts_markdown, dial_table, fine_table, read_stage
from pgp_core.files.atomic import replacing
from pgp_core.unet.plan import load_plan

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path, help="run folder of pgp-diffsr train nano")
parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the figures")
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("--table", choices=("fine", "dial"), action="append", help="both by default")
parser.add_argument("--whole", action="store_true", help="fine: cut the whole decoder only")
args = parser.parse_args()

seeds = range(args.seeds)
for kind in args.table or ("fine", "dial"):
    with tqdm(desc=kind, unit="row") as bar:

        def step(done: int, total: int, bar: tqdm = bar) -> bool:
            bar.total = total
            bar.update()
            return True

        stage = read_stage(args.folder / ("coarse" if kind == "fine" else "full") / "model.safetensors")
        if kind == "fine":
            counts = () if args.whole else (2, 1)
            table = fine_table(stage, load_plan("pgp-nano-coarse"), counts, (1 / 3, 2 / 3), seeds, step)
        else:
            table = dial_table(stage, (0, 0.1, 0.25, 0.5, 0.75, 1), seeds, step)
    args.output.mkdir(parents=True, exist_ok=True)
    with replacing(args.output / f"cuts-{kind}.json") as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(cuts_markdown(table))  # noqa: T201
