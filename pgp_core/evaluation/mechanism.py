"""The ablation table: does the picture change for the worse when PEAM, its input or its phase is taken away?

All variants use the same weights, which were trained with everything in place. So the table shows what the
model makes of each part; it does not say how good a model trained without that part would be.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from ..progress import Progress, tell
from ..restorers.nano.restorer import NanoRestorer
from ..restorers.recipe import decide
from ..restorers.restorer import Restorer
from ..sampling.options import SampleOptions
from .ablation import ablated
from .cases import RECIPE, cases, floats, picture_of
from .metrics import score
from .quality import STEPS
from .summary import HEADS, Scores, figure, markdown_table, over_photographs, spread, summarise

METRICS = ("psnr_y", "haarpsi")

#: Variant to its label; the first is what the others are compared with.
VARIANTS = {
    "on": "PEAM on",
    "off": "PEAM off",
    "shuffled": "PEAM sees another photograph",
    "no_phase": "fusion without the phase",
}


def mechanism_table(
    one_step: NanoRestorer,
    multi_step: NanoRestorer,
    seeds: Sequence[int] = (0, 1, 2),
    progress: Progress | None = None,
    pictures: Mapping[str, Image.Image] | None = None,
    change: Callable[..., Restorer] | None = None,
) -> dict[str, Any]:
    """Restore every photograph with every variant, in one step and in 20 steps from noise; the latter also
    without the additive site, so that the LQ comes in through PEAM alone.

    "Another photograph" is the next in the list (for the last, the first); all else of the model still sees
    its own LQ. Differences are paired: same photograph, same seed.

    Args:
        one_step, multi_step: loaded.
        seeds: of the start noise in 20 steps; one step draws none and so has no spread.
        progress: called after each picture.
        pictures: at least two, of one size; scikit-image's photographs by default.
        change: takes parts of a restorer away, by default :func:`.ablation.ablated`.

    Returns:
        JSON data: ``modes`` maps ``one_step``, ``multi_step`` and ``peam_alone`` to variants; each has ``label``,
        ``photographs`` (photograph to metric to one value per seed), ``mean``, ``spread`` and, but for the
        first, ``difference``: metric to ``mean`` and ``spread`` over seeds of this variant minus "PEAM on",
        and ``worse_on``, the number of photographs on which it falls behind.

    Raises:
        PGPError: if the evaluation's libraries are missing.
        Cancelled: when ``progress`` returned False.
    """
    todo = cases(pictures)
    sampled = [decide(multi_step.recipe, {"steps": STEPS}).options(seed=s) for s in seeds]
    label = f"{STEPS} steps from noise"
    modes: dict[str, tuple[str, NanoRestorer, Sequence[SampleOptions | None], bool]] = {
        "one_step": ("one step", one_step, [None], True),
        "multi_step": (label, multi_step, sampled, True),
        "peam_alone": (f"{label}, the LQ through PEAM alone", multi_step, sampled, False),
    }
    done, total = 0, len(todo) * len(VARIANTS) * (1 + 2 * len(seeds))
    data = {}
    for mode, (label, restorer, options, base) in modes.items():
        rows: dict[str, dict[str, Any]] = {}
        for variant in VARIANTS:
            scores: Scores = {case.name: {m: [] for m in METRICS} for case in todo}
            for i, case in enumerate(todo):
                taken = _change(variant, todo[(i + 1) % len(todo)].canvas) | ({} if base else {"base": False})
                changed = (change or ablated)(restorer, **taken) if taken else restorer
                for option in options:
                    picture = picture_of(changed.restore(case.canvas, option))
                    for metric, value in score(floats(picture), floats(case.hq), METRICS).items():
                        scores[case.name][metric].append(value)
                    done += 1
                    tell(progress, done, total)
            rows[variant] = {"label": VARIANTS[variant], "photographs": scores, **summarise(scores)}
            if variant != "on":
                rows[variant]["difference"] = _difference(scores, rows["on"]["photographs"])
        data[mode] = {"label": label, "variants": rows}
    return {"recipe": RECIPE, "steps": STEPS, "cfg": multi_step.recipe.cfg, "seeds": list(seeds), "modes": data}


def render_markdown(table: Mapping[str, Any]) -> str:
    """One table per mode, as Markdown."""
    heads = [HEADS[m][0] for m in METRICS]
    text = (
        f"# Mechanism\n\nLQ: {table['recipe']}. {table['steps']} steps have CFG {table['cfg']:g} and "
        f"{len(table['seeds'])} seed(s); ± is the standard deviation over them. All variants have the same weights, "
        "trained with everything in place. Differences are to PEAM on, with the same seeds.\n"
    )
    for mode in table["modes"].values():
        rows = []
        for row in mode["variants"].values():
            cells = [row["label"], *(figure(m, row["mean"][m], row["spread"][m]) for m in METRICS)]
            for m in METRICS:
                d = row.get("difference", {}).get(m)
                cells.append(figure(m, d["mean"], d["spread"], sign=True) if d else "")
            d, count = row.get("difference"), len(row["photographs"])
            cells.append(f"{d['psnr_y']['worse_on']}, {d['haarpsi']['worse_on']} of {count}" if d else "")
            rows.append(cells)
        differences = [f"Δ {head.split(' ')[0]}" for head in heads]
        text += f"\n## {mode['label'][:1].upper()}{mode['label'][1:]}\n\n"
        text += markdown_table(["", *heads, *differences, "worse on (PSNR-Y, HaarPSI)"], rows)
    return text


def _change(variant: str, other: Any) -> dict[str, Any]:
    """What a variant takes away."""
    return {"on": {}, "off": {"peam": False}, "shuffled": {"peam_lq": other}, "no_phase": {"exchange": False}}[variant]


def _difference(scores: Scores, reference: Scores) -> dict[str, dict[str, Any]]:
    result = {}
    for metric in METRICS:
        paired: Scores = {
            name: {metric: [a - b for a, b in zip(values[metric], reference[name][metric], strict=True)]}
            for name, values in scores.items()
        }
        per_seed = over_photographs(paired, metric)
        result[metric] = {
            "mean": statistics.fmean(per_seed),
            "spread": spread(per_seed),
            "worse_on": sum(statistics.fmean(v[metric]) < 0 for v in paired.values()),
        }
    return result
