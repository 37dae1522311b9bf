"""The quality table: bicubic, one step and twenty steps on photographs degraded by the fixed recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from ..progress import Progress, tell
from ..restorers.recipe import decide
from ..restorers.restorer import Restorer
from .cases import RECIPE, Case, cases, floats, picture_of
from .metrics import AGAINST_HQ, score
from .summary import HEADS, Scores, figure, markdown_table, summarise

STEPS = 20
DENOISE = 0.5

#: ``on_picture(row, photograph, seed, picture)`` for every picture that is scored.
OnPicture = Callable[[str, str, "int | None", Image.Image], None]


def quality_table(
    one_step: Restorer,
    multi_step: Restorer,
    seeds: Sequence[int] = (0,),
    denoise: float = DENOISE,
    progress: Progress | None = None,
    pictures: Mapping[str, Image.Image] | None = None,
    on_picture: OnPicture | None = None,
) -> dict[str, Any]:
    """Restore every photograph in every way and score it.

    Rows: ``bicubic`` (the bar) and ``lanczos`` (the canvas that models get), both in 8 bits by Pillow;
    ``one_step``; ``noise``, 20 steps from noise; ``lq``, 20 steps from the LQ latent with noise.

    Args:
        one_step, multi_step: loaded; 20 steps are sampled with ``multi_step.recipe.cfg``.
        seeds: of the sampled rows' start noise; the other rows draw none.
        denoise: of the ``lq`` row, see :class:`pgp_core.sampling.options.SampleOptions`.
        progress: called after each picture.
        pictures: RGB, sides divisible by 4; scikit-image's photographs by default.
        on_picture: called with each picture in 8 bits; for looking at them.

    Returns:
        JSON data. ``rows`` maps a row to its ``label``, its ``seeds`` (None where it draws no noise),
        ``photographs`` (photograph to metric to one value per seed), ``mean`` over photographs and seeds,
        and ``spread``, the standard deviation of that mean over seeds (None for one seed).

    Raises:
        PGPError: if the evaluation's libraries are missing.
        Cancelled: when ``progress`` returned False.
    """
    todo = cases(pictures)

    def sampled(**changes: Any) -> Callable[[Case, int | None], Image.Image]:
        return lambda case, seed: picture_of(
            multi_step.restore(
                case.canvas, decide(multi_step.recipe, {"steps": STEPS}, changes).options(seed=seed or 0)
            )
        )

    methods: dict[str, tuple[str, Sequence[int | None], Callable[[Case, int | None], Image.Image]]] = {
        "bicubic": ("bicubic", [None], lambda case, _: case.lq.resize(case.hq.size, Image.Resampling.BICUBIC)),
        "lanczos": ("Lanczos", [None], lambda case, _: case.lanczos),
        "one_step": ("one step", [None], lambda case, _: picture_of(one_step.restore(case.canvas))),
        "noise": (f"{STEPS} steps from noise", list(seeds), sampled()),
        "lq": (f"{STEPS} steps from LQ, denoise {denoise:g}", list(seeds), sampled(start="lq", denoise=denoise)),
    }
    done, total = 0, len(todo) * sum(len(s) for _, s, _ in methods.values())
    rows = {}
    for key, (label, row_seeds, restore) in methods.items():
        scores: Scores = {case.name: {m: [] for m in AGAINST_HQ} for case in todo}
        for case in todo:
            for seed in row_seeds:
                picture = restore(case, seed)
                if on_picture:
                    on_picture(key, case.name, seed, picture)
                for metric, value in score(floats(picture), floats(case.hq)).items():
                    scores[case.name][metric].append(value)
                done += 1
                tell(progress, done, total)
        drawn = None if row_seeds == [None] else row_seeds
        rows[key] = {"label": label, "seeds": drawn, "photographs": scores, **summarise(scores)}
    return {
        "recipe": RECIPE,
        "steps": STEPS,
        "cfg": multi_step.recipe.cfg,
        "denoise": denoise,
        "seeds": list(seeds),
        "rows": rows,
    }


def render_markdown(table: Mapping[str, Any]) -> str:
    """The table of means, and one of every photograph, as Markdown."""
    rows, seeds = table["rows"], table["seeds"]
    names = list(next(iter(rows.values()))["photographs"])
    heads = [head for head, _ in HEADS.values()]
    means = [[r["label"], *(figure(m, r["mean"][m], r["spread"][m]) for m in HEADS)] for r in rows.values()]
    each = []
    for name in names:
        for row in rows.values():
            one = summarise({name: row["photographs"][name]})
            each.append([f"{name}, {row['label']}", *(figure(m, one["mean"][m], one["spread"][m]) for m in HEADS)])
    over = f"; ± is the standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else ""
    return (
        f"# Quality\n\nLQ: {table['recipe']}. {table['steps']} steps have CFG {table['cfg']:g}. PSNR-Y and SSIM: "
        f"those of docs/benchmarks.md, of studio-range luma. Flat noise: levels of 255.\n\n"
        f"## Mean over {len(names)} photographs{over}\n\n{markdown_table(['', *heads], means)}\n"
        f"## Each photograph\n\n{markdown_table(['', *heads], each)}"
    )
