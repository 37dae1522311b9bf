"""The options that say how a model is used, for every command that makes pictures with one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..choices import BLENDS, COLOR_FIXES, MAX_FIDELITY, PHASES
from ..sampling.rules import SPACINGS, STARTS
from .numbers import finite, integer, seed

if TYPE_CHECKING:
    from ..restorers.recipe import Recipe
    from ..restorers.restorer import Restorer
    from ..sampling.options import SampleOptions

#: Fields of :class:`pgp_core.restorers.recipe.Recipe` that are options here.
SETTINGS = ("steps", "cfg", "start", "spacing", "denoise", "color_fix", "fidelity", "tile", "overlap")


def add_to(parser: argparse.ArgumentParser, exclusive: bool = True) -> None:
    """Register the options.

    Args:
        exclusive: whether argparse says what :func:`contradiction` says; not where there are several models.
    """
    how = parser.add_mutually_exclusive_group() if exclusive else parser
    how.add_argument("--one-step", action="store_true", help="one UNet call (nano's default)")
    how.add_argument("--steps", type=integer, metavar="N", help="Euler steps with CFG, 20 as in the paper")
    parser.add_argument("--cfg", type=finite, metavar="F", help="classifier-free guidance (the model's own)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the noise, with --steps (0)")
    parser.add_argument(
        "--start", choices=STARTS, help="what --steps starts from (nano: noise; full size: lr, without guidance lq)"
    )
    parser.add_argument(
        "--spacing",
        choices=SPACINGS,
        help="of the timesteps; trailing for Lightning and Turbo (as the model's files say, else leading)",
    )
    parser.add_argument(
        "--denoise",
        type=finite,
        metavar="F",
        help="noise added to an lq start (0.5)",
    )
    parser.add_argument("--strength", type=finite, default=1.0, metavar="F", help="of the guidance, 0 to 1 (1)")
    parser.add_argument("--color-fix", choices=COLOR_FIXES, help="whose colours to keep (wavelet)")
    parser.add_argument(
        "--fidelity",
        type=_fidelity,
        metavar="PIXELS",
        help="follow the input in all that is coarser than this many pixels of the result: the fewer, the more "
        "faithful; try the scale, so 4 for four times the size (off)",
    )


def _fidelity(text: str) -> float:
    """A type for argparse: pixels that the dial takes, or ``off``."""
    if text == "off":
        return 0.0
    value = finite(text)
    if not 0 <= value <= MAX_FIDELITY:
        raise argparse.ArgumentTypeError(f"0 (off) to {MAX_FIDELITY} pixels are possible, not {value:g}")
    return value


def add_tiles(parser: argparse.ArgumentParser) -> None:
    """Register those of large pictures."""
    tiles = parser.add_argument_group("large pictures", "what does not fit in memory at once is restored in tiles")
    tiles.add_argument(
        "--tile",
        type=integer,
        metavar="N",
        help="side in pixels; 0 by what fits and is fast (the model's own, else 0)",
    )
    tiles.add_argument(
        "--overlap", type=integer, metavar="N", help="of neighbours, in pixels (the model's own, else 128)"
    )
    tiles.add_argument("--blend", choices=BLENDS, default="cosine", help="of what tiles share (cosine)")
    tiles.add_argument("--phase", choices=PHASES, default="tile", help="over what PEAM exchanges the phase (tile)")


def one_step(args: argparse.Namespace) -> bool | None:
    """One UNet call, or steps; None where nobody says."""
    return True if args.one_step else None if args.steps is None else False


def contradiction(args: argparse.Namespace) -> str | None:
    """What does not go together, or None."""
    if args.one_step and args.steps is not None:
        return "--steps is not allowed with --one-step"
    return None


def own(args: argparse.Namespace) -> dict[str, Any]:
    """What belongs to a run and to no recipe; all numbers are looked at before anything is read.

    Raises:
        PGPError: if one is out of range.
    """
    from ..restorers.recipe import Recipe, decide

    found: dict[str, Any] = {"seed": args.seed, "strength": args.strength}
    # From the latent, which is what a share of the noise range belongs to.
    decide(Recipe(), {name: getattr(args, name) for name in SETTINGS}, {"start": "lq"}).options(**found)
    return found


def decided(restorer: Restorer, args: argparse.Namespace) -> tuple[Recipe, SampleOptions]:
    """How a model that is loaded is used: its own recipe, unless the user says otherwise."""
    from ..restorers.recipe import decide

    wanted = {name: getattr(args, name) for name in SETTINGS}
    recipe = decide(restorer.recipe, {k: v for k, v in wanted.items() if k != "steps" or not restorer.recipe.one_step})
    return recipe, recipe.options(**own(args), blend=args.blend, phase=args.phase)
