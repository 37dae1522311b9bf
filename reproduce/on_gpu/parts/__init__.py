"""The parts, most wanted first: each writes what it has found row by row."""

from __future__ import annotations

import argparse
import importlib

from ..results import Results
from ..supervise import Part, end_with_parent

#: Their limits leave half a minute of ten for the start.
PARTS = (
    Part(1, "tests", 160),
    Part(2, "unet", 200),
    Part(3, "one-step", 100),
    Part(4, "large", 80),
)
_MODULES = {1: "changed_by_cuda", 2: "unet", 3: "one_step", 4: "large"}


def run_part(number: int, args: argparse.Namespace) -> int:
    """One part in this process; 1 if a row failed."""
    end_with_parent()
    # Wrong usage is said without PyTorch.
    from ..setting import Setting

    part = next(p for p in PARTS if p.number == number)
    setting = Setting(args.device, args.tiny, args.temporary, args.comfyui)
    about = {"part": part.number, "name": part.name, "device": args.device, "tiny": args.tiny}
    results = Results(part.file(args.output), about)
    module = importlib.import_module(f".{_MODULES[number]}", __name__)
    module.run(results, setting)
    return 1 if results.finish() else 0
