"""Hostile and damaged input in any number: every case must end well, or in one clear line.

    python reproduce/fuzz.py --cases 20000 --json fuzz.json

The suite runs some 300 of these cases (``tests/fuzz``). Case number n of a seed is always the same, whatever else is
run: ``--only plan --first 17 --cases 1`` runs one again and shows where it failed. Needs the ``test`` extra.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Not in front: a module of ours must not hide a library's.
sys.path.append(str(ROOT / "tests" / "support"))


#: Of computing, that no case may take: it would keep a batch waiting. The first of a kind also makes what it needs.
SECONDS = 40.0


def main() -> int:
    """Run the cases; exit status 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="in all (20000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (0)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a target; repeatable")
    parser.add_argument("--json", type=Path, help="write what was found")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    from fuzzing import TARGETS, Failure, Prepared, run_case

    targets = args.only or list(TARGETS)
    ended: dict[str, Counter[str]] = {t: Counter() for t in targets}
    failures: list[dict[str, Any]] = []
    started = time.monotonic()
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        prepared = Prepared(Path(folder) / "prepared")
        for number in range(args.first, args.first + args.cases):
            if time.monotonic() - started > args.seconds:
                break
            target = targets[number % len(targets)]
            rng = random.Random(f"{args.seed}/{target}/{number}")
            try:
                ended[target][run_case(target, rng, Path(folder) / "case", prepared, SECONDS)] += 1
            except Failure as e:
                ended[target]["failed"] += 1
                failures.append({"target": target, "case": number, "error": str(e)})
                print(f"case {number}: {e}", file=sys.stderr, flush=True)  # noqa: T201
            done += 1
    result = {
        "cases": done,
        "failed": len(failures),
        "seconds": round(time.monotonic() - started, 1),
        "seed": args.seed,
        "targets": {t: dict(c) for t, c in ended.items()},
        "failures": failures[:200],
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "failures"}, indent=1))  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
