"""``pgp-diffsr train teacher``: ask an upscaler for its answers, once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .numbers import whole
from .output import emit, say


def add_to(actions: Any, add_set: Callable[[argparse.ArgumentParser], None]) -> None:
    """Register the command.

    Args:
        add_set: registers ``--set``.
    """
    parser = actions.add_parser(
        "teacher",
        help="make the crops that a run with a [teacher] is trained on",
        description="Draws crops as the run's [data] says, asks the upscaler of [teacher] to enlarge each LQ picture, "
        "and keeps LQ, HQ and the answer in teacher.file. Ctrl-C keeps what is made; the same command goes on.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file, or the name of one that ships")
    add_set(parser)
    parser.add_argument(
        "--lq", type=Path, metavar="DIR",
        help="write the LQ pictures there instead, for another program: it enlarges them by 4 under the same names, "
        "and the folder of its results is teacher.model",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of a teacher from a file (cpu)")
    parser.add_argument("--threads", type=whole("threads", 1, 4096), metavar="N", help="of PyTorch and ncnn")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=_teacher)


def _teacher(args: argparse.Namespace) -> int:
    import torch

    from ..errors import PGPError
    from ..training.config import load_config
    from ..training.teaching import make_taught, write_lq_crops

    config = load_config(args.config, args.overrides)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise PGPError("--device cuda: PyTorch finds no such device here")
    if args.lq is not None:
        found = write_lq_crops(config, args.lq)
        line = f"{found['crops']} LQ crops in {found['folder']}, {found['written']} of them new"
    else:
        found = make_taught(config, device=torch.device(args.device))
        line = f"{found['crops']} crops with the answer of {found['teacher']} ({found['licence']}) in {found['file']}"
    emit(found) if args.json else say(line)
    return 0
