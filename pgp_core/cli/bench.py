"""``pgp-diffsr bench``: what pruning saves on this machine (``unet``), how fast crops are made (``data``)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..choices import DTYPES
from ..restorers.nano.family import NANO
from ..restorers.sdxl.family import SDXL
from . import bench_data
from .device import choose_device
from .numbers import whole
from .output import emit, plain

if TYPE_CHECKING:
    from ..bench import BenchFigures


#: UNets whose rows are known, see :data:`pgp_core.bench.rows.COMPARED`.
SHAPES = (SDXL.name, NANO.name)


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("bench", help="time and memory on this machine")
    actions = parser.add_subparsers(dest="action", required=True, metavar="WHAT")
    unet = actions.add_parser(
        "unet",
        help="one UNet step: full, FaithDiff's, pruned, and pruned with PEAM",
        description="Times one UNet call of SDXL's full UNet (full), with FaithDiff's alignment (faithdiff), after "
        "the coarse and the fine plan (coarse, fine), and with PEAM (fine+peam), in one run and in turn. Weights are "
        "random. What is computed once per picture (LQ encoder, LQ adapter) is not part of a step. Peak memory is "
        "PyTorch's on CUDA, the process's resident memory on a Linux CPU, with Python and its libraries in it, "
        "and 0 where the system does not say. The full UNet takes 10.3 GB in fp32.",
    )
    unet.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (auto)")
    unet.add_argument(
        "--latent", type=whole("a latent's side", 8, 1024), default=128, metavar="N", help="an N x N latent (128)"
    )
    unet.add_argument("--dtype", choices=DTYPES, help="of weights and latent (bf16 on cuda, else fp32)")
    unet.add_argument(
        "--repeats",
        type=whole("repeats", 1, 1000),
        default=3,
        metavar="N",
        help="timed calls of each; their median (3)",
    )
    unet.add_argument("--batch", type=whole("a batch", 1, 64), default=1, metavar="N", help="pictures in a call (1)")
    unet.add_argument("--cfg", action="store_true", help="a step with CFG: every picture twice in a call")
    unet.add_argument("--compile", action="store_true", help="through torch.compile")
    unet.add_argument("--shape", choices=SHAPES, default=SHAPES[0], help=f"which UNet ({SHAPES[0]})")
    unet.add_argument("--json", action="store_true", help="one JSON object on stdout")
    unet.set_defaults(run=_unet)
    bench_data.add_to(actions)


def _unet(args: argparse.Namespace) -> int:
    device = choose_device(args.device)
    import torch
    from tqdm import tqdm

    from ..bench import BenchOptions, bench_unet
    from ..unet.known import SHAPES as KNOWN
    from .output import say

    dtype = args.dtype or ("bf16" if torch.device(device).type == "cuda" else "fp32")
    if args.latent % 4:
        say(f"a latent of {args.latent} is no multiple of 4: the UNet rounds up inside, which costs time")
    options = BenchOptions(
        device=device,
        dtype=getattr(torch, DTYPES[dtype]),
        latent=args.latent,
        batch=args.batch,
        cfg=args.cfg,
        repeats=args.repeats,
        compiled=args.compile,
        shape=KNOWN[args.shape],
    )
    with tqdm(desc="bench", unit="call", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = bench_unet(options, progress)
    if args.json:
        emit(report.to_json())
    else:
        _print(report)
    return 0


def _print(report: BenchFigures) -> None:
    """The table for people, on stderr."""
    o = report.options
    lines = [f"{'':<10} {'s/step':>8} {'min':>8} {'max':>8} {'of full':>8} {'peak GB':>8} {'M params':>9}"]
    for row in report.rows:
        memory = f"{row.peak_memory_bytes / 1e9:.2f}" if row.peak_memory_bytes else "?"
        lines.append(
            f"{row.name:<10} {row.seconds_per_step:>8.4g} {row.seconds_min:>8.4g} {row.seconds_max:>8.4g} "
            f"{row.ratio_to_full:>8.3f} {memory:>8} {row.params / 1e6:>9.2f}"
        )
    dtype = str(o.dtype).removeprefix("torch.")
    lines.append(
        f"{o.shape.topology.name} on {o.device}, {dtype}, {o.latent} x {o.latent} latent, "
        f"batch {o.batch}{' with CFG' if o.cfg else ''}{', compiled' if o.compiled else ''}, median of {o.repeats}; "
        f"hooking PEAM in costs {report.injection_overhead_ratio:.2%} of a full step beside PEAM itself"
    )
    for line in lines:
        plain(line)
