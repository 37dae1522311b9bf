"""Arguments that name samples to train on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .numbers import count, seed, whole

if TYPE_CHECKING:
    from ..training.samples import FolderSamples

DEGRADATIONS = ("second-order", "nano")
ENLARGEMENTS = ("canvas", "faithdiff")


def add_samples(parser: argparse.ArgumentParser) -> None:
    """The arguments of :func:`folder_samples` beside the folder."""
    parser.add_argument(
        "--patch",
        type=whole("a crop's side", 8, 16384),
        default=512,
        metavar="N",
        help="a crop's side in HQ pixels (512)",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of crops and degradations (0)")
    parser.add_argument("--degradation", choices=DEGRADATIONS, default="second-order", help="HQ to LQ (second-order)")
    parser.add_argument(
        "--enlarge",
        choices=ENLARGEMENTS,
        default="canvas",
        help="LQ to canvas: as upscaling does, or nearest, bilinear or bicubic at random (canvas)",
    )
    parser.add_argument(
        "--crops-per-picture",
        type=count,
        default=1,
        metavar="N",
        help="crops in a row from one picture (1)",
    )


def folder_samples(args: argparse.Namespace, folder: Path, **more: Any) -> FolderSamples:
    """The samples that the arguments name; ``more`` goes to :class:`pgp_core.training.samples.FolderSamples`.

    Raises:
        PGPError: see :class:`pgp_core.training.samples.FolderSamples`.
    """
    from ..training.degradation import Degradation
    from ..training.samples import FAITHDIFF_ENLARGEMENTS, FolderSamples
    from ..training.second_order import SecondOrder

    return FolderSamples(
        folder,
        args.patch,
        args.seed,
        SecondOrder() if args.degradation == "second-order" else Degradation(),
        enlarge=("lanczos",) if args.enlarge == "canvas" else FAITHDIFF_ENLARGEMENTS,
        crops_per_picture=args.crops_per_picture,
        **more,
    )
