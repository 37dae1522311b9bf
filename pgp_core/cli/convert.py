"""``pgp-diffsr convert``: FaithDiff's published file, split for ComfyUI."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..choices import DTYPES
from ..visible import visible
from .output import emit, plain, say


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

    from ..files.weights import open_weights
    from ..guidance.convert import convert
    from ..unet.core_loading import loads_in_core
    from ..unet.inspect import inspect_unet

    with tqdm(desc=visible(args.file.name), unit="B", unit_scale=True, disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        unet, guidance = convert(args.file, args.output, getattr(torch, DTYPES[args.dtype]), progress, say)
    with open_weights(unet) as file:
        loading = loads_in_core(inspect_unet(file))
    if args.json:
        about = {"input": str(args.file), "unet": str(unet), "guidance": str(guidance), "dtype": args.dtype}
        emit({**about, "loads_in_core": loading.loads})
    for path in (unet, guidance):
        plain(str(path))
    say(str(loading))
    return 0
