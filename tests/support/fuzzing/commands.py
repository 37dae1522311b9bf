"""Command lines: hostile options and files, with a stand-in where a model would be loaded."""

from __future__ import annotations

import contextlib
import io
import os
import random
from pathlib import Path
from typing import Any
from unittest import mock

from perfect import Perfect

from pgp_core.cli import main
from pgp_core.cli import upscale as upscale_command

from . import hostile
from .prepared import Prepared


def argv(rng: random.Random, folder: Path, prepared: Prepared) -> str:
    """Exit status 0, 1 or 2, and no traceback."""
    arguments = _arguments(rng, folder, prepared.safe)
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(upscale_command, "_load", lambda _model, _args: Perfect()),
        ):
            try:
                status: Any = main(arguments)
            except SystemExit as e:
                status = e.code
    finally:
        os.chdir(before)
    text = err.getvalue()
    shown = [a[:80] for a in arguments]
    if status not in (0, 1, 2):
        raise AssertionError(f"exit status {status} of {shown}: {text[-300:]}")
    if "Traceback" in text or "this is a mistake" in text:
        raise AssertionError(f"{shown}: {text[-600:]}")
    odd = {c for c in text if (c < " " and c not in "\n\r") or "\x7f" <= c <= "\x9f" or c in "\u202e\u2066"}
    if odd:
        raise AssertionError(f"{shown}: sends {odd!r} to the terminal")
    if status and not text.strip():
        raise AssertionError(f"{shown}: exit status {status} without a word")
    for line in text.splitlines():
        if len(line) > 1500:
            raise AssertionError(f"{shown}: a line of {len(line)} characters")
    return f"exit {status}"


def _number(rng: random.Random) -> str:
    if rng.randrange(4):
        return rng.choice(("1", "2", "2", "3", "64", "0.5"))
    return rng.choice(("1", "2", "0", "-1", "3", "1.5", "nan", "inf", "-inf", "1e999", "9" * 5000, str(2**64), "",
                       str(2**63), "x", "\u0663", "1_0", " 4 ", "0x10", "1e-320", "4.0"))  # fmt: skip


def _path(rng: random.Random, folder: Path, safe: Path) -> str:
    good = [str(safe / n) for n in ("a.png", "plan.json", "report.json", "run.toml", "damaged.png", "some.safetensors",
                                    "some.bin", "none.png")]  # fmt: skip
    odd = [str(safe), "", ".", "/", "/dev/null", "/proc/self/mem", "x" * 300, "a\0b", "-", "--", "~", "a\x1b[31m.png",
           "\udcff.png", "\u202egnp.exe", "a/b/c", str(folder / "new")]  # fmt: skip
    return rng.choice(odd) if rng.randrange(6) == 0 else rng.choice(good)


#: Command: words that follow, and options with what they take ("n": number, "p": path, None: nothing, or words).
_COMMANDS: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {
    ("upscale",): ("p", {
        "-o": "w", "--scale": "n", "--width": "n", "--longest": "n", "--steps": "n", "--cfg": "n", "--seed": "n",
        "--denoise": "n", "--strength": "n", "--quality": "n", "--tile": "n", "--overlap": "n", "--json": None,
        "--format": ("png", "tiff", "jpeg", "webp", "x"), "--overwrite": None, "--lossless": None,
        "--color-fix": ("none", "wavelet", "x"), "--start": ("noise", "lq", "lr")}),
    ("plan", "show"): ("p", {"--latent": "n", "--json": None}),
    ("plan", "list"): ("", {"--json": None}),
    ("plan", "build"): ("", {
        "-o": "w", "--report": "p", "--method": ("coarse", "fine", "dial", "x"), "--amount": "n", "--tau-cos": "n",
        "--tau-kl": "n", "--count": ("1", "x=1", "9" * 5000, "up_blocks.0.attentions.0=1", "=", "-1"),
        "--max-params": "n", "--name": "t", "--base": "p", "--model": "p", "--json": None, "--overwrite": None}),
    ("plan", "apply"): ("pp", {"-o": "w", "--json": None}),
    ("guidance", "show"): ("p", {"--json": None}),
    ("guidance", "init"): ("", {"-o": "w", "--model": "p", "--faithdiff": "p", "--plan": "p", "--seed": "n"}),
    ("convert",): ("p", {"-o": "w", "--dtype": ("fp16", "x"), "--json": None}),
    ("export",): ("p", {"-o": "w", "--renumber": None, "--json": None}),
    ("train", "finetune"): ("p", {"--dry-run": None, "--set": "s", "--threads": "n", "--json": None}),
    ("train", "sheet"): ("p", {"-o": "w", "--count": "n", "--patch": "n", "--seed": "n", "--crops-per-picture": "n"}),
    ("plot", "phase"): ("p", {"-o": "w", "--limit": "n", "--width": "n", "--json": None}),
    ("plot", "report"): ("p", {"-o": "w", "--width": "n", "--plan": "p", "--kind": ("boxes", "x")}),
    ("bench", "data"): ("", {"--folder": "p", "--count": "n", "--patch": "n", "--seed": "n"}),
    ("analyze",): ("", {"--images": "p", "-o": "w", "--steps": "n", "--limit": "n", "--scale": "n", "--seed": "n"}),
    ("eval",): ("", {"-o": "w", "--seeds": "n"}),
    (): ("t", {"--version": None, "--debugx": None, "--help": None}),
}  # fmt: skip
#: What must be there so that nothing long begins: a run that is not dry, a model that is loaded, a table that is made.
_ALWAYS = {("train", "finetune"): ["--dry-run"], ("analyze",): ["--model", "none.bin", "--sdxl", "none"]}


#: What fits most often: a case in which all is wrong sees the first thing alone.
_FITS = {
    ("upscale",): "a.png", ("plan", "show"): "plan.json", ("plan", "apply"): "plan.json", ("plot", "phase"): "a.png",
    ("plot", "report"): "report.json", ("train", "finetune"): "run.toml", ("guidance", "show"): "some.safetensors",
}  # fmt: skip


def _arguments(rng: random.Random, folder: Path, safe: Path) -> list[str]:
    command = rng.choice(list(_COMMANDS))
    positional, options = _COMMANDS[command]
    result = [*command, *_ALWAYS.get(command, [])]
    for kind in positional:
        fits = command in _FITS and rng.randrange(3)
        result.append(str(safe / _FITS[command]) if fits else _value(rng, kind, folder, safe))
    for option, kind in options.items():
        needed = option in ("-o", "--method", "--images", "--folder")
        if rng.randrange(10) < (9 if needed else 3):
            result.append(option)
            if kind is not None and rng.randrange(20):
                result.append(_value(rng, kind, folder, safe))
    if rng.randrange(12) == 0:
        result.insert(rng.randrange(len(result) + 1), rng.choice(hostile.TEXTS))
    if rng.randrange(12) == 0:
        result.pop(rng.randrange(len(result)))
    if command in (("train", "finetune"), ("eval",)) and "--dry-run" not in result:
        # Such a run would begin.
        result.append("--no-such-option")
    return result


def _value(rng: random.Random, kind: Any, folder: Path, safe: Path) -> str:
    if isinstance(kind, tuple):
        return str(rng.choice(kind))
    if kind == "n":
        return _number(rng)
    if kind == "p":
        return _path(rng, folder, safe)
    if kind == "w":
        if rng.randrange(4):
            return str(folder / rng.choice(("out", "out.json", "out.png", "out.safetensors")))
        names = (
            "out",
            "out.json",
            "out.png",
            "out.safetensors",
            "o\x1b.json",
            "x" * 300,
            "out/deep/er.json",
            "o\udcff.png",
        )
        return rng.choice((*(str(folder / n) for n in names), "/proc/x", "/dev/null/x"))
    if kind == "s":
        key = rng.choice(("run.steps", "data.folder", "run.seed", "x"))
        return f"{key}={rng.choice((_number(rng), '[1', '~nobody/x'))}"
    return rng.choice(hostile.TEXTS)
