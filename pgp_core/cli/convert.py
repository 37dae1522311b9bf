"""``pgp-diffsr convert``: FaithDiff's published file, split for ComfyUI."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .output import emit, say

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "convert", help="split FaithDiff's file into a UNet and a guidance file (LQ encoder and alignment)"
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="FaithDiff.bin, or the same as safetensors")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder; ComfyUI's models folder is a good one"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="fp16", help="of the weights written (fp16)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from ..convert import convert

    with tqdm(desc=args.file.name, unit="B", unit_scale=True, disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        unet, guidance = convert(args.file, args.output, getattr(torch, DTYPES[args.dtype]), progress, say)
    if args.json:
        emit({"input": str(args.file), "unet": str(unet), "guidance": str(guidance), "dtype": args.dtype})
    print(f"{unet}\n{guidance}", file=sys.stderr)  # noqa: T201
    return 0
