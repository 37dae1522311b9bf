"""``pgp-diffsr models``: which restorers are known, and what files are."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import model_options
from .batch import paths
from .output import emit, plain, say, table

if TYPE_CHECKING:
    from ..restorers.family import Family
    from ..restorers.looking import Seen
    from ..restorers.recipe import Recipe


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "models",
        help="which restorers are known; what files are, and what they still need",
        description="Without files: the families of restorers that are known. With files: what each is, whatever it "
        "is called, and what it still needs to be a restorer. Names and shapes are read, no weights. Exit status 1 if "
        "a file is missing, damaged, or a download that failed; the others are still said.",
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="files, folders as diffusers saves them, folders of files; or nano"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a family, or a file, on stdout")
    group = parser.add_argument_group("what is there beside the files", "so that less is said to be needed")
    model_options.add_parts(group)
    model_options.add_conditioning(group)
    parser.set_defaults(run=run, wrong_usage=parser.error)


def run(args: argparse.Namespace) -> int:
    """List families, or look at files."""
    beside = {name: getattr(args, name) for name in (*model_options.PARTS, *model_options.CONDITIONING)}
    if args.files:
        return _files(args.files, beside, args.json)
    if given := next((name for name, path in beside.items() if path is not None), None):
        args.wrong_usage(f"--{given.replace('_', '-')} says what is there beside a FILE: give one")
    return _families(args.json)


# -- families ------------------------------------------------------------------------------------------------


def _families(json: bool) -> int:
    from ..restorers.finding import FAMILIES

    for number, family in enumerate(FAMILIES):
        if json:
            emit(_row(family))
            continue
        if number:
            plain("")
        plain(f"{family.name}: {family.title}")
        needs = family.wants or ("nothing else",)
        named = [("files", family.files), *(("" if i else "needs", need) for i, need in enumerate(needs))]
        used = [("" if i else "defaults", text) for i, text in enumerate(_recipes(family))]
        table([("  " + a, b) for a, b in (*named, *used, ("licence", family.licence), ("from", family.published))])
    return 0


def _row(family: Family) -> dict[str, Any]:
    return {
        "name": family.name,
        "title": family.title,
        "files": family.files,
        "needs": list(family.wants),
        "recipe": asdict(family.recipe()),
        "recipe_steps": asdict(family.steps) if family.steps else None,
        "recipe_once": asdict(family.once) if family.once else None,
        "licence": family.licence,
        "published": family.published,
        "frame": asdict(family.frame),
        "bundled": family.bundled,
    }


def _recipes(family: Family) -> list[str]:
    """How it is used, what it does where nobody says first."""
    both = [r for r in (family.steps, family.once) if r is not None]
    if family.prefers_one_step:
        both.reverse()
    extra = "" if family.prefers_one_step or family.wants == () else ", with its LoRA"
    return [_words(r, "" if i == 0 else "or ", extra if i else "") for i, r in enumerate(both)]


def _words(recipe: Recipe, before: str, extra: str) -> str:
    if recipe.one_step:
        return f"{before}one step at timestep {recipe.timestep}, {recipe.rule} (--one-step{extra})"
    starts = {
        "noise": "from noise",
        "lr": "from noise and the picture's latent",
        "lq": f"from the picture with {recipe.noise:.0%} of the noise range",
    }
    return f"{before}{recipe.steps} steps, CFG {recipe.cfg:g}, {starts[recipe.start]} (--steps)"


# -- files ---------------------------------------------------------------------------------------------------


def _files(files: list[str], beside: dict[str, Path | None], json: bool) -> int:
    from ..restorers.given import Given
    from ..restorers.looking import each, look, look_bundled

    given = Given(**beside)  # type: ignore[arg-type]
    given.check_files()
    failed = total = 0
    for text in files:
        path = model_options.model_path(text)
        found = [look_bundled()] if Given(model=path).bundled else (look(one, given) for one in each(path))
        for seen in found:
            total += 1
            failed += seen.error is not None
            if json:
                emit(_line(seen))
            else:
                _tell(seen)
    if failed and total > 1:
        say(f"{failed} of {total} files could not be read, or are not what they should be")
    return 1 if failed else 0


def _line(seen: Seen) -> dict[str, Any]:
    return {
        **paths(file=seen.path),
        "family": seen.family.name if seen.family else None,
        "is": seen.what,
        "needs": list(seen.needs),
        **({"goes": seen.goes} if seen.goes else {}),
        **({"error": seen.error} if seen.error else {}),
    }


def _tell(seen: Seen) -> None:
    plain(str(seen.path))
    rows = [("  is", seen.what)]
    if seen.error:
        rows.append(("  error", seen.error))
    elif seen.family is None:
        rows.append(("  restorer", f"no; {seen.goes}" if seen.goes else "no"))
    else:
        rows.append(("  restorer", f"{seen.family.name}: {seen.family.title}"))
        needs = seen.needs or ("nothing else",)
        rows += [("  needs" if i == 0 else "", need) for i, need in enumerate(needs)]
    table(rows)
