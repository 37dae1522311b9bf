"""``pgp-diffsr train sheet``: look at what would be trained on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .numbers import count
from .output import emit, say
from .samples import add_samples, folder_samples

MOST = 100


def add_to(actions: Any) -> None:
    """Register the command."""
    sheet = actions.add_parser(
        "sheet",
        help="a contact sheet of crops: LQ canvas and HQ side by side",
        description="Draws the first crops that a training run would see of a folder of HQ pictures, with the LQ made "
        "for each and the first words of its caption (a.txt beside a.jpg), and says what was found and skipped.",
    )
    sheet.add_argument("pictures", type=Path, metavar="FOLDER", help="HQ pictures, in folders within it too")
    sheet.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="sheet.jpg or sheet.png")
    sheet.add_argument("--count", type=count, default=12, metavar="N", help="crops (12)")
    add_samples(sheet)
    sheet.add_argument("--json", action="store_true", help="what was found as one JSON object on stdout")
    sheet.set_defaults(run=_sheet)


def _sheet(args: argparse.Namespace) -> int:
    from ..errors import PGPError
    from ..training.samples import contact_sheet
    from ..training.samples.sheet import save

    if not 1 <= args.count <= MOST:
        raise PGPError(f"a sheet has 1 to {MOST} crops, not {args.count}")
    samples = folder_samples(args, args.pictures)
    save(contact_sheet(samples, args.count), args.output)
    summary = samples.summary()
    for line in summary.lines():
        say(line)
    if args.json:
        emit({"output": str(args.output), "count": args.count, **summary.to_json()})
    return 0
