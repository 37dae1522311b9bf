"""Seams, shifts, memory, time and plain pictures in tiles, on nano; makes tables of docs/reproduction.md.

    python reproduce/large_pictures_on_nano.py -o docs/reproduction/large-pictures.json

measures, each by itself with ``--only``, what the files in ``large_pictures/`` describe: ``seams``, ``shift``,
``memory`` (about 25 minutes, most of them for 8192 x 8192) and ``plain``.

What is done already with the same weights is not done again, so the command may be stopped and given again; with other
weights it begins anew. Processes with different sections may share the work. ``--folder`` takes another nano than the
bundled one, ``--tables`` prints what a file holds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from large_pictures import memory, plain, seams, shift

from pgp_core.evaluation.cases import cases
from pgp_core.evaluation.photographs import whole_photographs
from pgp_core.files.atomic import replacing
from pgp_core.restorers.nano import model as nano
from pgp_core.restorers.nano.restorer import NanoRestorer

SECTIONS = {"seams": seams, "shift": shift, "memory": memory, "plain": plain}

Save = Callable[[], None]


def weights_of(folder: Path) -> str:
    """By which figures are known to be of the same model."""
    digest = hashlib.sha256()
    for file in (nano.UNET_FILE, nano.GUIDANCE_FILE, nano.S1_FILE, nano.CONTEXTS_FILE):
        digest.update((folder / file).read_bytes())
    return digest.hexdigest()[:16]


def read(file: Path) -> dict[str, Any]:
    """What a file holds; nothing where there is none."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def measure(args: argparse.Namespace, data: dict[str, Any], save: Save) -> None:
    """Whatever is wanted and not there."""
    pipelines: dict[tuple[int, str], NanoRestorer] = {}

    def pipeline(steps: int, dtype: str = "float32") -> NanoRestorer:
        key = (min(steps, 2), dtype)
        if key not in pipelines:
            pipelines[key] = NanoRestorer.load(one_step=steps == 1, folder=args.folder, dtype=plain.DTYPES[dtype])
        return pipelines[key]

    def once(section: str, key: str, make: Callable[[], Any]) -> None:
        if key not in (here := data.setdefault(section, {})):
            here[key] = make()
            save()
            print(section, key, flush=True)  # noqa: T201

    if "seams" in args.only:
        for steps, longest in ((1, args.longest), (args.steps, args.longest_in_steps)):
            for case in cases(whole_photographs(longest, args.photograph)):
                key = f"{steps}, {longest} px, {case.name}"
                once("seams", key, lambda c=case, n=steps: seams.measure(pipeline(n), c, n))
    if "shift" in args.only:
        for case in cases(whole_photographs(args.longest_in_steps, args.photograph)):
            key = f"{args.steps}, {args.longest_in_steps} px, {case.name}"
            once("shift", key, lambda c=case: shift.measure(pipeline(args.steps), c, args.steps))
    if "plain" in args.only:
        for name, picture in plain.pictures(plain.SIDE).items():
            for steps in plain.STEPS:
                loaded = {dtype: pipeline(steps, dtype) for dtype in plain.DTYPES}
                once("plain", f"{steps}, {name}", partial(plain.measure, loaded, picture, steps))
    if "memory" in args.only:
        pipelines.clear()
        for side, tile in memory.SIZES:
            once("memory", f"{side}, {tile}", lambda s=side, t=tile: memory.measure(s, t, args.folder))


def tables(data: Mapping[str, Any]) -> str:
    """What there is, as Markdown."""
    return "\n".join(module.table(data[name]) for name, module in SECTIONS.items() if data.get(name))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--only", choices=list(SECTIONS), action="append", help="all by default")
    parser.add_argument("--folder", type=Path, default=nano.FOLDER, help="nano's files")
    parser.add_argument("--longest", type=int, default=512, help="pixels that a side has at most, one step")
    parser.add_argument("--longest-in-steps", type=int, default=384, help="the same for many steps")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--photograph", action="append", help="all six by default")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tables", action="store_true", help="only print what there is")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.output is None:
        parser.error("the following argument is required: -o")
    args.only = args.only or list(SECTIONS)
    data = read(args.output)
    if args.tables:
        print(tables(data))  # noqa: T201
        return
    if data.get("weights") != (weights := weights_of(args.folder)):
        data = {"weights": weights}
    data["machine"] = {"torch": torch.__version__, "threads": torch.get_num_threads(), "system": platform.system()}
    args.output.parent.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        # Another process may have added other sections meanwhile.
        there = read(args.output)
        if there.get("weights") == weights:
            data.update({name: {**there.get(name, {}), **data.get(name, {})} for name in SECTIONS})
        with replacing(args.output) as temporary:
            temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    measure(args, data, save)
    print(tables(data))  # noqa: T201


if __name__ == "__main__":
    main()
