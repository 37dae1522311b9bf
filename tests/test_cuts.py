"""What the tables of cut blocks and of the ablations are made of."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

from pgp_core.evaluation.cuts import blindly, cuts_markdown, randomly, read_stage, stage_pipeline
from pgp_core.evaluation.summary import summarise
from pgp_core.training.export import import_nano
from pgp_core.unet.plan import load_plan

ABLATION = Path(__file__).parent.parent / "reproduce" / "ablation_on_nano.py"
STACK = "up_blocks.0.attentions.1"


@pytest.mark.parametrize(
    ("way", "count", "kept"),
    [("first", 2, (0, 1)), ("last", 2, (2, 3)), ("spread", 2, (0, 3)), ("spread", 1, (0,)), ("last", 1, (3,))],
)
def test_blind_plans_keep_what_their_names_say(way: str, count: int, kept: tuple[int, ...]) -> None:
    base = load_plan("pgp-nano-coarse")
    plan = blindly(base, [STACK], count, way)
    assert plan.stacks[STACK].keep == kept
    assert {s: e for s, e in plan.stacks.items() if s != STACK} == {s: e for s, e in base.stacks.items() if s != STACK}


@pytest.mark.parametrize("removed", [0, 4, 12])
def test_random_plans_cut_the_decoder_alone_and_empty_no_stack(removed: int) -> None:
    base = load_plan("pgp-nano-coarse")
    drawn = [randomly(base, removed, seed) for seed in range(20)]
    for plan in drawn:
        assert plan.removed == base.removed + removed
        assert all(e.keep and set(e.keep) <= set(base.stacks[s].keep) for s, e in plan.stacks.items())
        assert all(e == base.stacks[s] for s, e in plan.stacks.items() if not s.startswith("up_blocks"))
    assert removed == 0 or len({str(p.stacks) for p in drawn}) > 1
    assert randomly(base, removed, 3) == drawn[3]


def test_the_change_is_taken_with_the_same_noise() -> None:
    def row(label: str, *values: float) -> dict[str, object]:
        scores = {"photograph": {"psnr_y": [20.0, 22.0], "haarpsi": list(values)}}
        return {"label": label, "scores": scores, **summarise(scores)}

    table = {"kind": "fine", "rows": [row("nothing", 0.5, 0.7), row("something", 0.49, 0.67)]}
    # Changes of -0.01 and -0.03: their mean is -0.02, their deviation 0.0141, though the rows spread by 0.14.
    first, second = cuts_markdown(table).splitlines()[2:]
    assert first.endswith("| +0.0000 ± 0.0000 |")
    assert second.endswith("| 0.5800 ± 0.1273 | -0.0200 ± 0.0141 |")


def test_merging_s1_leaves_the_stage_as_it_was(tmp_path: Path) -> None:
    """The weights of a stage serve many rows: a LoRA merged for one must not be in the next."""
    import_nano(tmp_path)
    stage = read_stage(tmp_path / "fine" / "model.safetensors")
    before = {k: v.clone() for k, v in stage.items()}
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    out, into = stage[f"unet.{layer}.weight"].shape
    s1 = {
        f"unet.{layer}.lora_A.default.weight": torch.ones(1, into),
        f"unet.{layer}.lora_B.default.weight": torch.ones(out, 1),
    }
    for _ in range(2):
        merged = stage_pipeline(stage, s1=s1).unet.get_submodule(layer).weight
        torch.testing.assert_close(merged, before[f"unet.{layer}.weight"] + 1)
    assert all(torch.equal(v, before[k]) for k, v in stage.items())


def test_the_ablation_prints_what_its_runs_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def scores(haarpsi: float) -> dict[str, dict[str, float]]:
        return {
            name: {"psnr_y": 26 + more, "haarpsi": haarpsi + more, "gmsd": 0.1, "sharpness": 1.0}
            for name, more in (("one", 0.0), ("two", 0.1))
        }

    for seed, haarpsi in ((0, 0.5), (1, 0.6)):
        found = {"row": "fine", "label": "fine, full PEAM", "seed": seed, "unet_params": 4_212_144}
        found["scores"] = {"all": scores(haarpsi), "PEAM's site alone": scores(haarpsi - 0.2)}
        (tmp_path / f"fine-{seed}.json").write_text(json.dumps(found))
    monkeypatch.setattr("sys.argv", ["ablation_on_nano.py", str(tmp_path), "-o", str(tmp_path), "--tables"])
    runpy.run_path(str(ABLATION), run_name="__main__")
    shown = capsys.readouterr().out
    # Means over photographs of 0.55 and 0.65: their mean is 0.6, their deviation 0.0707.
    row = "| fine, full PEAM | 2 | 4.21 M | 26.05 ± 0.00 | 0.6000 ± 0.0707 | 0.1000 ± 0.0000 | 1.00 ± 0.00 |"
    assert shown.count(row) == 3, "in each of the three tables"
    assert shown.count("0.4000 ± 0.0707") == 3
    assert "### Guidance (Table 5), the LQ through PEAM's site alone" in shown
