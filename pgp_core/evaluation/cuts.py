"""What it costs to remove blocks without healing: plans from a report, and the same number of blocks cut blindly."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..conditioning.conditioning import Conditioning
from ..errors import CheckpointError
from ..files.checkpoints import read_safetensors
from ..guidance.module import KEY_PREFIX, Guidance
from ..images.resampling import resize
from ..planner import by_count, dial
from ..planner.fine import smallest_scale, totals
from ..progress import Progress, tell
from ..redundancy.analyze import analyze
from ..redundancy.report import Report
from ..restorers.nano import model as nano
from ..restorers.nano.family import NANO as NANO_FAMILY
from ..restorers.nano.restorer import NanoRestorer
from ..restorers.restorer import Restorer
from ..sampling.options import SampleOptions
from ..training.degradation import Degradation
from ..training.painting import Painter
from ..unet import lora
from ..unet.known import NANO, NANO_SHAPE
from ..unet.loading import load_unet
from ..unet.plan import PrunePlan, StackPlan
from ..unet.prune import prune_state_dict
from ..unet.topology import stacks_of
from .cases import Case, cases, floats, picture_of
from .metrics import score
from .summary import HEADS, Scores, figure, markdown_table, over_photographs, spread, summarise

METRICS = ("psnr_y", "haarpsi")
#: Half of what one would sample with: a table takes many runs, and all rows have the same.
STEPS = 10
#: Seed of the pictures on which redundancy is measured: neither trained on nor judged by.
MEASURED_ON = 7001

Weights = Mapping[str, torch.Tensor]


def read_stage(path: Path) -> Weights:
    """Weights of a stage of nano's training: ``unet.``, ``guidance.`` and ``contexts.`` tensors.

    Raises:
        CheckpointError: if the file is none.
    """
    weights, _ = read_safetensors(path)
    if {k.split(".")[0] for k in weights} != {"unet", "guidance", "contexts"}:
        raise CheckpointError(f"{path} is no stage of nano's training: give model.safetensors of a stage's folder")
    return weights


def stage_pipeline(
    weights: Weights, plan: PrunePlan | None = None, guidance: str | None = None, s1: Weights | None = None
) -> NanoRestorer:
    """A stage, ready to sample.

    Args:
        weights: see :func:`read_stage`. They are left as they are.
        plan: blocks that it removes are left out.
        guidance: the stage's ``model.guidance``; None for ``base`` or ``peam``, as its weights say.
        s1: the weights of a stage of distillation on it, for one step.
    """

    def part(name: str) -> dict[str, torch.Tensor]:
        return {k[len(name) + 1 :]: v for k, v in weights.items() if k.startswith(f"{name}.")}

    unet, adapter, contexts = part("unet"), part("guidance"), part("contexts")
    if plan is not None:
        unet = prune_state_dict(unet, plan)
    stacks = stacks_of(unet)
    kept = PrunePlan("kept", NANO.name, {s: StackPlan(d, stacks[s]) for s, d in NANO.depths.items()}, {})
    if guidance is None:
        guidance = "peam" if any(k.startswith("peam.") for k in adapter) else "base"
    spec = nano.guidance_spec(None if guidance == "base" else guidance)
    negative, positive = (
        Conditioning.of_prompt(contexts["context"][i : i + 1], contexts["pooled"][i : i + 1], nano.TIME_IDS)
        for i in range(2)
    )
    if s1 is not None:
        # The UNet takes these tensors as they are, and merging changes it in place: the caller's would change too.
        unet = {k: v.clone() for k, v in unet.items()}
    loaded = load_unet(NANO_SHAPE, kept, unet, "the stage")
    if s1 is not None:
        lora.merge(loaded, lora.from_peft({k.removeprefix("unet."): v for k, v in s1.items()}), source="S1")
    return NanoRestorer(
        loaded,
        Guidance(spec, device="meta").load({KEY_PREFIX + k: v for k, v in adapter.items()}, "the stage").eval(),
        positive,
        negative,
        NANO_FAMILY.recipe(s1 is not None, {"cfg": 1.0}),
        nano.PREDICTION,
        nano.RESIDUAL_STD,
    )


def measure(weights: Weights, name: str, pictures: int = 3, side: int = 160) -> Report:
    """A redundancy report of a stage, measured on synthetic pictures."""
    painter = Painter(MEASURED_ON, side)

    def canvas(i: int) -> torch.Tensor:
        rng = np.random.default_rng([MEASURED_ON, i])
        lq = Degradation().draw(Image.fromarray(painter.picture(rng)), rng)
        return torch.from_numpy(floats(resize(lq, side, side))).permute(2, 0, 1)[None].float()

    named = [(f"synthetic {i}", partial(canvas, i)) for i in range(pictures)]
    return analyze(stage_pipeline(weights), name, named, SampleOptions(steps=STEPS, cfg=1.0, seed=MEASURED_ON))


def blindly(base: PrunePlan, stacks: Sequence[str], count: int, way: str, seed: int = 0) -> PrunePlan:
    """``count`` blocks of each stack, chosen without looking: ``first``, ``last``, ``spread`` or ``random``."""

    def choose(blocks: tuple[int, ...]) -> tuple[int, ...]:
        if way == "random":
            return tuple(sorted(rng.sample(blocks, count)))
        if way == "spread":
            return tuple(blocks[round(i * (len(blocks) - 1) / max(1, count - 1))] for i in range(count))
        return blocks[:count] if way == "first" else blocks[-count:]

    rng = random.Random(seed)
    changed = {s: StackPlan(base.stacks[s].depth, choose(base.stacks[s].keep)) for s in stacks}
    return PrunePlan(way, base.topology, {**base.stacks, **changed}, {})


def randomly(base: PrunePlan, removed: int, seed: int) -> PrunePlan:
    """A plan without ``removed`` more blocks of the decoder, drawn from those that leave one in each stack."""
    rng, blocks = random.Random(seed), {s: list(e.keep) for s, e in base.stacks.items()}
    for _ in range(removed):
        stack = rng.choice([s for s in blocks if NANO.stage(s) == "decoder" for _ in blocks[s][1:]])
        blocks[stack].remove(rng.choice(blocks[stack]))
    return PrunePlan(
        "random", base.topology, {s: StackPlan(e.depth, tuple(blocks[s])) for s, e in base.stacks.items()}, {}
    )


def fine_table(
    weights: Weights,
    base: PrunePlan,
    counts: Sequence[int],
    shares: Sequence[float],
    seeds: Sequence[int],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The decoder cut by report and blindly, nothing healed.

    Args:
        weights: a stage that was pruned by ``base`` and healed.
        counts: blocks that stay in each stack of the smallest scale, as the paper cuts.
        shares: of what can be removed of the whole decoder.
        seeds: of the start noise, and of the random choice.

    Returns:
        JSON data: ``rows``, each with ``label``, what was ``removed`` (of all blocks), the plans' ``keep``, and
        scores as :func:`summarise` has them.
    """
    found = measure(weights, "coarse")
    stacks, each = smallest_scale(NANO), len(seeds)
    todo: list[tuple[str, list[PrunePlan]]] = [("nothing more", [base] * each)]
    for count in counts:
        where = f"all but {count} of 4 at the smallest scale"
        todo.append((f"{where}, by report", [by_count(base, found, count)] * each))
        todo += [(f"{where}, {w}", [blindly(base, stacks, count, w)] * each) for w in ("spread", "first", "last")]
        todo.append((f"{where}, random", [blindly(base, stacks, count, "random", s) for s in seeds]))
    for share in shares:
        plan = dial(found, share, ("decoder",), base)
        n = plan.removed - base.removed
        todo.append((f"{n} of the whole decoder, by report", [plan] * each))
        todo.append((f"{n} of the whole decoder, random", [randomly(base, n, s) for s in seeds]))
    rows, judged = [], cases()
    for label, plans in todo:
        scores = _scores(weights, plans, judged, seeds)
        keep = [{s: list(e.keep) for s, e in p.stacks.items() if NANO.stage(s) == "decoder"} for p in plans]
        rows.append({"label": label, "removed": plans[0].removed, "keep": keep, "scores": scores, **summarise(scores)})
        tell(progress, len(rows), len(todo))
    return {"kind": "fine", "steps": STEPS, "seeds": list(seeds), "rows": rows}


def dial_table(
    weights: Weights, amounts: Sequence[float], seeds: Sequence[int], progress: Progress | None = None
) -> dict[str, Any]:
    """The training-free dial on an unpruned stage.

    Returns:
        as :func:`fine_table`; rows have ``amount``, ``params`` and ``macs`` (shares of the whole) instead.
    """
    found, rows, judged = measure(weights, "full"), [], cases()
    for amount in amounts:
        plan = dial(found, amount)
        cost = totals(plan, found)
        scores = _scores(weights, [plan] * len(seeds), judged, seeds)
        shares = {k: v / found.totals[k] for k, v in cost.items()}
        rows.append({"amount": amount, "removed": plan.removed, **shares, "scores": scores, **summarise(scores)})
        tell(progress, len(rows), len(amounts))
    return {"kind": "dial", "steps": STEPS, "seeds": list(seeds), "rows": rows}


def _scores(weights: Weights, plans: Sequence[PrunePlan], judged: Sequence[Case], seeds: Sequence[int]) -> Scores:
    scores: Scores = {case.name: {m: [] for m in METRICS} for case in judged}
    for plan, seed in zip(plans, seeds, strict=True):
        for name, found in judge(stage_pipeline(weights, plan), judged, seed).items():
            for m in METRICS:
                scores[name][m].append(found[m])
    return scores


def judge(restorer: Restorer, judged: Sequence[Case], seed: int, steps: int = STEPS) -> dict[str, dict[str, float]]:
    """Restore photographs of one size at once, and score each.

    Returns:
        photograph to metric to value.
    """
    canvases = torch.cat([case.canvas for case in judged])
    restored = restorer.restore(canvases, SampleOptions(steps=steps, cfg=1.0, seed=seed))
    return {case.name: score(floats(picture_of(restored[i : i + 1])), floats(case.hq)) for i, case in enumerate(judged)}


def cuts_markdown(table: Mapping[str, Any]) -> str:
    """A table as Markdown, each row also held against the first with the same noise."""
    heads = [*(HEADS[m][0] for m in METRICS), "change of HaarPSI, same noise"]
    first = over_photographs(table["rows"][0]["scores"], "haarpsi")

    def figures(row: Mapping[str, Any]) -> list[str]:
        changes = [a - b for a, b in zip(over_photographs(row["scores"], "haarpsi"), first, strict=True)]
        change = figure("haarpsi", statistics.fmean(changes), spread(changes), sign=True)
        return [*(figure(m, row["mean"][m], row["spread"][m]) for m in METRICS), change]

    if table["kind"] == "fine":
        rows = [[r["label"], *figures(r)] for r in table["rows"]]
        return markdown_table(["removed", *heads], rows)
    rows = [
        [f"{r['amount']:g}", str(r["removed"]), f"{r['params']:.0%}", f"{r['macs']:.0%}", *figures(r)]
        for r in table["rows"]
    ]
    return markdown_table(["dial", "blocks removed", "parameters", "multiply-accumulates", *heads], rows)
