"""The options that say which model is used and of what it is made, for every command that uses one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..choices import DTYPES
from .numbers import finite, share
from .output import say

if TYPE_CHECKING:
    from ..restorers.family import Found
    from ..restorers.given import Given
    from ..restorers.restorer import Restorer

#: Options of :func:`add_parts` and of :func:`add_conditioning`.
PARTS = ("base", "guidance", "vae")
CONDITIONING = ("conditioning", "negative_conditioning")
#: Fields of :class:`pgp_core.restorers.given.Given` whose option has another name.
_OPTION_OF = {"loras": "lora"}


def add_to(parser: argparse.ArgumentParser, model_action: Any = None) -> None:
    """Register the options.

    Args:
        model_action: argparse's action for ``--model``, of commands that take several; by default the last one counts.
    """
    group = parser.add_argument_group(
        "the model",
        "nano, which is bundled, or files on this machine: FaithDiff, PGP-DiffSR, SDXL; pgp-diffsr models lists what "
        "is known; nothing is downloaded",
    )
    group.add_argument(
        "--model",
        action=model_action or "store",
        type=model_path,
        metavar="nano|FILE",
        help="file of a UNet or checkpoint, or FaithDiff.bin (nano; a file of that name is ./nano)",
    )
    add_parts(group)
    group.add_argument("--plan", metavar="NAME|FILE", help="prune plan; blocks that it removes are not read")
    group.add_argument(
        "--lora",
        type=Path,
        action="append",
        metavar="FILE|DIR",
        help="LoRA for the UNet, as any tool writes it; several: again",
    )
    group.add_argument(
        "--semantic-lora", type=Path, metavar="FILE", help="with --one-step: the second of two LoRAs, for detail"
    )
    group.add_argument("--pixel", type=finite, metavar="F", help="beside --semantic-lora: strength of --lora (1)")
    group.add_argument("--semantic", type=finite, metavar="F", help="strength of --semantic-lora (1)")
    group.add_argument(
        "--natural",
        type=share,
        metavar="F",
        help="nano's one step, where it has two LoRAs: from faithful (0) to natural (1) (as its files say, else 0)",
    )
    group.add_argument("--prompt", metavar="TEXT", help="what the picture shows (empty)")
    group.add_argument("--negative-prompt", metavar="TEXT", help="what it does not (empty)")
    add_conditioning(group)
    group.add_argument("--dtype", choices=DTYPES, help="of the UNet (fp32 on the CPU, else fp16)")


def add_parts(group: Any) -> None:
    """Register what a UNet needs beside it: :data:`PARTS`."""
    group.add_argument(
        "--base",
        "--sdxl",
        type=Path,
        metavar="DIR|CHECKPOINT",
        help="what is not given otherwise: UNet, VAE, text encoders (--sdxl is the same)",
    )
    group.add_argument("--guidance", type=Path, metavar="FILE", help="guidance file, or FaithDiff.bin")
    group.add_argument("--vae", type=Path, metavar="FILE|DIR", help="VAE (the one in --base, else in --model)")


def add_conditioning(group: Any) -> None:
    """Register :data:`CONDITIONING`."""
    group.add_argument("--conditioning", type=Path, metavar="FILE", help="saved CONDITIONING in place of --prompt")
    group.add_argument(
        "--negative-conditioning", type=Path, metavar="FILE", help="the same in place of --negative-prompt"
    )


def model_path(text: str) -> Path:
    """A type for argparse: ``nano`` is the bundled model, whatever lies in the working directory; ``./nano`` is a
    file, which as a path alone could not be told from it."""
    from ..restorers.given import SHORT_NAME

    path = Path(text)
    if text == SHORT_NAME:
        if path.exists():
            say(f"{text} is the bundled model; the file of that name here is ./{text}")
        return path
    return path.absolute() if str(path) == SHORT_NAME else path


def given(args: argparse.Namespace, one_step: bool | None) -> Given:
    """What the options give.

    Args:
        one_step: for one UNet call, or for steps; None as the family is meant to be used.

    Raises:
        PlanError: if the plan is none.
    """
    from ..restorers.given import Given
    from ..unet.plan import load_plan

    return Given(
        model=args.model,
        base=args.base,
        guidance=args.guidance,
        vae=args.vae,
        plan=load_plan(args.plan) if args.plan else None,
        loras=tuple(args.lora or ()),
        semantic_lora=args.semantic_lora,
        pixel=args.pixel,
        semantic=args.semantic,
        natural=args.natural,
        prompt=args.prompt,
        negative_prompt=args.negative_prompt,
        conditioning=args.conditioning,
        negative_conditioning=args.negative_conditioning,
        one_step=one_step,
        cfg=args.cfg,
        dtype=DTYPES[args.dtype] if args.dtype else None,
    )


def wrong_usage(args: argparse.Namespace, one_step: bool | None) -> str | None:
    """What does not go together, as far as no file need be looked at; or None."""
    from ..restorers.finding import bundled
    from ..restorers.given import Given

    known = {**vars(args), **{field: getattr(args, option) for field, option in _OPTION_OF.items()}}
    fields = [name for name in Given.__dataclass_fields__ if name != "one_step" and known[name] is not None]
    named = Given(**{name: known[name] for name in fields}, one_step=one_step)
    if not named.bundled:
        return named.contradiction()
    family = bundled()
    advice = "give --model or --base too" if named.model is None else "leave it out, or give another --model"
    if foreign := family.foreign(named):
        return f"{_option(foreign)} means nothing to {family.title}: {advice}"
    if args.start == "lr" and family.recipe(False).start != "lr":
        return f"--start lr means nothing to {family.title}: {advice}"
    return named.contradiction()


def _option(field: str) -> str:
    return "--" + _OPTION_OF.get(field, field).replace("_", "-")


def find(given: Given) -> Found:
    """Look at the files.

    Raises:
        WrongUsage: if what is given means nothing to the family, or does not go together.
        PGPError: see :func:`pgp_core.restorers.finding.find`.
    """
    from ..errors import WrongUsage
    from ..restorers.finding import find

    found = find(given)
    if foreign := found.family.foreign(given):
        raise WrongUsage(f"{_option(foreign)} means nothing to {found.what}: leave it out")
    if wrong := found.family.wrong(given):
        raise WrongUsage(wrong)
    return found


@contextmanager
def usage(args: argparse.Namespace) -> Iterator[None]:
    """What is wrong with the options ends the program as any wrong option does."""
    from ..errors import WrongUsage

    try:
        yield
    except WrongUsage as e:
        args.wrong_usage(str(e))


def load(found: Found, device: str) -> Restorer:
    """The model.

    Raises:
        PGPError: see :meth:`pgp_core.restorers.family.Found.load`.
    """
    # Before the libraries that have a network side are imported: they read it once.
    os.environ["HF_HUB_OFFLINE"] = "1"
    return found.load(device, say)
