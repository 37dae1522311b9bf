"""``pgp-diffsr train``: fine-tuning and distillation from one TOML file a run, and nano's stages in order."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import train_sheet, train_teacher
from .numbers import finite, share, whole
from .output import emit, say, table


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("train", help="training")
    actions = parser.add_subparsers(dest="action", required=True, metavar="WHAT")
    for name, text in (
        ("finetune", "train UNet, LQ adapter, PEAM, or a LoRA, as a TOML file says"),
        ("distill", "teach a model to work in one step, as a TOML file with [s1] says"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file, or the name of one that ships")
        action.add_argument("--dry-run", action="store_true", help="say what would be trained, on what, in how much")
        _add_set(action)
        action.add_argument("--threads", type=whole("threads", 1, 4096), metavar="N", help="of PyTorch")
        action.add_argument("--json", action="store_true", help="one JSON object on stdout")
        action.set_defaults(run=_run, distill=name == "distill")
    nano = actions.add_parser("nano", help="make the nano model: run its stages, then export")
    nano.add_argument(
        "--stage",
        action="append",
        metavar="NAME",
        help="regress, full, coarse, fine, peam, finish, s1, s1-2 (all, in order)",
    )
    nano.add_argument("--folder", type=Path, default=Path("runs/nano"), help="where runs live and resume (runs/nano)")
    nano.add_argument("--threads", type=whole("threads", 1, 4096), metavar="N", help="of PyTorch")
    _add_set(nano)
    nano.add_argument(
        "--from-shipped", action="store_true", help="take the files that ship as stage fine, and go on from there"
    )
    nano.add_argument("--export", type=Path, metavar="DIR", help="write the files that ship to DIR afterwards")
    nano.add_argument("--export-cfg", type=finite, default=1.0, metavar="F", help="CFG that the files ask for (1)")
    nano.add_argument(
        "--export-natural",
        type=share,
        default=0.0,
        metavar="F",
        help="where there is a run called natural in --folder: what the files ask for, faithful (0) to natural (1) (0)",
    )
    nano.set_defaults(run=_nano)
    train_teacher.add_to(actions, _add_set)
    train_sheet.add_to(actions)


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE",
        help="in place of what the file says; may be given several times",
    )  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..training.config import load_config

    config = load_config(args.config, args.overrides)
    if args.distill != (config.s1 is not None):
        other = "finetune" if args.distill else "distill"
        has = "no [s1]" if args.distill else "an [s1]"
        raise ConfigError(f"{args.config} has {has}: use `pgp-diffsr train {other}`")
    if args.dry_run:
        from ..training.preview import preview, rows

        found = preview(config, say)
        if args.json:
            emit(found)
        else:
            table(rows(found))
        return 0
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    from ..training.training_run import train

    figures = train(config, say)
    if figures["main"]:
        emit(figures) if args.json else say(f"done: {', '.join(figures['files'])} in {config.run.folder}")
    return 0


def _nano(args: argparse.Namespace) -> int:
    from ..errors import PGPError
    from ..training.export import export_nano, import_nano
    from ..training.nano import STAGES, run_stage

    after_fine = STAGES[STAGES.index("fine") + 1 :]
    default = after_fine if args.from_shipped else STAGES
    stages = args.stage if args.stage is not None else (() if args.export else default)
    for name in stages:
        if name not in STAGES:
            raise PGPError(f"there is no stage {name}; the stages are {', '.join(STAGES)}")
    if args.from_shipped:
        import_nano(args.folder)
        if args.stage is None and not (args.folder / "full" / "model.safetensors").exists():
            # Its score model does not ship.
            stages = [name for name in stages if name != "s1-2"]
            say(f"stage s1-2 is left out: it needs stage full in {args.folder}")
    for name in stages:
        emit(run_stage(name, args.folder, args.overrides, args.threads, say))
    if args.export:
        emit(export_nano(args.folder, args.export, args.export_cfg, args.export_natural))
    return 0
