"""The shipped nano model, and the commands that make it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pgp_core.codecs import pixel as pixel_codec
from pgp_core.errors import CheckpointError, PGPError
from pgp_core.evaluation.ablation import ablated
from pgp_core.files.checkpoints import read_safetensors, sha256, write_safetensors
from pgp_core.guidance.module import GuidanceSpec
from pgp_core.restorers.nano import model as nano
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.sampling.options import SampleOptions
from pgp_core.unet import lora
from pgp_core.unet.plan import PrunePlan, load_plan
from pgp_core.unet.topology import KeyMap, stacks_of

needs_weights = pytest.mark.skipif(
    not (nano.FOLDER / nano.UNET_FILE).exists(), reason="the nano weights are not in this checkout"
)
pytestmark = needs_weights


@pytest.fixture(scope="module")
def multi_step() -> NanoRestorer:
    return NanoRestorer.load(one_step=False)


def smooth(batch: int, height: int, width: int) -> torch.Tensor:
    coarse = torch.rand(batch, 3, 4, 5, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def test_everything_that_ships_is_at_most_16_mb() -> None:
    assert sum(p.stat().st_size for p in nano.FOLDER.rglob("*") if p.is_file()) <= 16_000_000


def test_figures_name_the_files_as_they_are() -> None:
    figures = json.loads((nano.FOLDER / "figures.json").read_text())
    for name, facts in figures["files"].items():
        assert facts["sha256"] == sha256(nano.FOLDER / name), name


def test_the_unet_is_what_its_plan_says() -> None:
    weights, metadata = read_safetensors(nano.FOLDER / nano.UNET_FILE)
    plan = PrunePlan.from_json(json.loads(metadata["pgp.plan"]))
    assert plan == load_plan("pgp-nano")
    assert stacks_of(weights) == {stack: entry.keep for stack, entry in plan.stacks.items()}


def test_guidance_and_s1_fit_the_unet() -> None:
    weights, _ = read_safetensors(nano.FOLDER / nano.UNET_FILE)
    names = KeyMap.of(weights)
    _, metadata = read_safetensors(nano.FOLDER / nano.GUIDANCE_FILE)
    spec = GuidanceSpec.from_metadata(metadata)
    assert spec.base == "pgp-nano"
    assert [names.block_of_site(s.module) for s in spec.sites] == [("input", 0), ("input", 3)]
    s1, _ = read_safetensors(nano.FOLDER / nano.S1_FILE)
    modules = {lora.PREFIX + names.to_diffusers(k).rsplit(".", 1)[0].replace(".", "_") for k in weights}
    stems = {k.split(".")[0] for k in s1}
    assert stems <= modules
    ranks = {stem: s1[f"{stem}.lora_down.weight"].shape[0] for stem in stems}
    # It changes nearly all of conv_in, which takes its full rank: 64 outputs.
    assert ranks.pop("lora_unet_conv_in") == 64
    assert set(ranks.values()) == {16}


@pytest.mark.parametrize("colour", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5), (0.0, 0.0, 1.0)])
def test_flat_pictures_stay_finite(multi_step: NanoRestorer, colour: tuple[float, float, float]) -> None:
    flat = torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert multi_step.restore(flat, SampleOptions(steps=2, cfg=1.5)).isfinite().all()


def test_strength_zero_ignores_the_picture(multi_step: NanoRestorer) -> None:
    """Without guidance the residual depends on the noise alone."""
    options = SampleOptions(steps=2, cfg=1, strength=0)
    residuals = []
    for picture in (torch.full((1, 3, 32, 32), 0.4), torch.full((1, 3, 32, 32), 0.6)):
        residuals.append(multi_step.restore(picture, options) - picture)
    inside = (residuals[0].abs() < 0.3) & (residuals[1].abs() < 0.3)
    torch.testing.assert_close(residuals[0][inside], residuals[1][inside], atol=1e-5, rtol=0)


def test_codec_is_lossless() -> None:
    picture = smooth(2, 8, 12)
    torch.testing.assert_close(pixel_codec.decode(pixel_codec.encode(picture)), picture, atol=1e-6, rtol=0)


def test_missing_and_extra_keys_are_named_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "nano"
    shutil.copytree(nano.FOLDER, folder)
    weights, metadata = read_safetensors(folder / nano.UNET_FILE)
    gone = [k for k in weights if k.startswith("middle_block.1.transformer_blocks.0.attn1")]
    for k in gone:
        del weights[k]
    weights["input_blocks.9.0.surprise"] = torch.zeros(1)
    write_safetensors(folder / nano.UNET_FILE, weights, metadata)
    with pytest.raises(PGPError):
        NanoRestorer.load(folder=folder)
    del weights["input_blocks.9.0.surprise"]
    write_safetensors(folder / nano.UNET_FILE, weights, metadata)
    with pytest.raises(CheckpointError, match=rf"{len(gone)} in all"):
        NanoRestorer.load(folder=folder)


def built(config: Any) -> Any:
    """A run's model, its weights loaded."""
    from pgp_core.training.building import inspect

    return inspect(config, str).load(torch.device("cpu")).eval()


def test_stages_chain_from_pictures_to_files(tmp_path: Path) -> None:
    """Every stage for a step or two, then the export, then the exported files restore a picture."""
    pytest.importorskip("peft")
    from pgp_core.training import nano as recipe
    from pgp_core.training.export import export_nano
    from pgp_core.training.painting import paint_set

    paint_set(str(tmp_path / "run" / "pictures.npy"), 3, seed=0)
    short = ["run.steps=1", "data.pictures=3", "data.batch=2", "data.patch=64", "data.workers=0", "optimizer.warmup=0"]
    for name in recipe.STAGES:
        figures = recipe.run_stage(name, tmp_path / "run", short, progress=False)
        assert figures["steps"] == 1
    out = tmp_path / "files"
    # A second S1 LoRA is a run of its own beside them.
    shutil.copytree(tmp_path / "run" / "s1", tmp_path / "run" / "natural")
    export_nano(tmp_path / "run", out, cfg=1.5, natural_default=0.25)
    second, _ = read_safetensors(tmp_path / "run" / "s1-2" / "model.safetensors")
    shipped, _ = read_safetensors(out / nano.S1_FILE)
    stem = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    assert torch.equal(
        shipped[f"lora_unet_{stem.replace('.', '_')}.lora_up.weight"],
        second[f"unet.{stem}.lora_B.default.weight"].half(),
    ), "S1's second stage ships"
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in log] == [*recipe.STAGES, "natural"]
    assert str(tmp_path) not in (out / "figures.json").read_text(), "where it was run is nobody's business"
    pipeline = NanoRestorer.load(one_step=True, folder=out)
    assert pipeline.recipe.natural == 0.25
    _, said = read_safetensors(out / nano.NATURAL_FILE)
    assert json.loads(said["pgp.s1"])["rank"] == 16
    assert NanoRestorer.load(one_step=False, folder=out).recipe.cfg == 1.5
    assert pipeline.restore(smooth(1, 32, 32)).isfinite().all()
    # A stage that was trained with another plan would get metadata that its weights contradict.
    finish = tmp_path / "run" / "finish" / "model.safetensors"
    weights, _ = read_safetensors(finish)
    stack = "up_blocks.0.attentions.0"
    gone = f"unet.{stack}.transformer_blocks.{load_plan('pgp-nano').stacks[stack].keep[-1]}."
    write_safetensors(finish, {k: v for k, v in weights.items() if not k.startswith(gone)})
    with pytest.raises(PGPError, match="other blocks than plan pgp-nano"):
        export_nano(tmp_path / "run", tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_training_goes_on_from_the_files_that_ship(tmp_path: Path) -> None:
    from pgp_core.training import nano as recipe
    from pgp_core.training.export import import_nano

    import_nano(tmp_path)
    model = built(recipe.stage_config("teach", tmp_path))
    shipped = NanoRestorer.load(one_step=False)
    assert all(torch.equal(v, model.unet.state_dict()[k]) for k, v in shipped.unet.state_dict().items())
    # A fresh PEAM changes nothing, so the model is the shipped one with its PEAM off.
    canvas = smooth(1, 32, 32)
    wanted = ablated(shipped, peam=False).restore(canvas, SampleOptions(steps=2))
    shipped.unet, shipped.guidance = model.unet, model.guidance
    torch.testing.assert_close(shipped.restore(canvas, SampleOptions(steps=2)), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.contexts.context[1:], shipped.positive.context)
    torch.testing.assert_close(model.contexts.pooled[:1], shipped.negative.pooled)
    with pytest.raises(PGPError, match="already"):
        import_nano(tmp_path)


def test_from_the_files_that_ship_no_stage_runs_that_needs_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pgp_core.cli import main
    from pgp_core.training import nano as recipe

    run: list[str] = []
    monkeypatch.setattr(recipe, "run_stage", lambda name, *_: run.append(name) or {})
    assert main(["train", "nano", "--from-shipped", "--folder", str(tmp_path / "a")]) == 0
    assert run == ["teach", "peam", "finish", "s1"]
    assert "s1-2 is left out: it needs stage full" in capsys.readouterr().err
    run.clear()
    assert main(["train", "nano", "--folder", str(tmp_path / "b")]) == 0
    assert run == list(recipe.STAGES)
    assert run[-1] == "s1-2"


@pytest.mark.parametrize("change", [{"pgp.model": "[]"}, {"pgp.model": '{"cfg": "x"}'}, {"pgp.model": '{"cfg": null}'}])
def test_wrong_metadata_gives_one_clear_line(change: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "nano"
    shutil.copytree(nano.FOLDER, folder)
    weights, metadata = read_safetensors(folder / nano.UNET_FILE)
    write_safetensors(folder / nano.UNET_FILE, weights, metadata | change)
    with pytest.raises(CheckpointError, match="metadata") as error:
        NanoRestorer.load(folder=folder)
    assert "\n" not in str(error.value)


def test_is_peam_alive(tmp_path: Path) -> None:
    """The probe against the variance that Kaiming's start values keep; and it sees a dead one."""
    from pgp_core.training import nano as recipe
    from pgp_core.training.export import import_nano
    from pgp_core.training.sources import Source
    from pgp_core.training.subject import Sample
    from pgp_core.training.training_run import peam_std

    import_nano(tmp_path)
    model = built(recipe.stage_config("teach", tmp_path))
    g = torch.Generator().manual_seed(0)
    source = Source([Sample(*torch.rand(2, 3, 64, 64, generator=g)) for _ in range(2)], batch=2)
    alive = peam_std(model, source)
    assert len(alive) == 12
    assert all(0.3 < later / alive[0] < 3 for later in alive)
    with torch.no_grad():
        model.guidance.peam["1"].convs[5].weight.zero_()
    assert max(peam_std(model, source)[6:]) < 1e-3
    assert peam_std(built(recipe.stage_config("regress", tmp_path)), source) == [], "no PEAM in that stage"


def test_a_stage_without_the_one_before_says_so(tmp_path: Path) -> None:
    from pgp_core.training import nano as recipe

    with pytest.raises(PGPError, match=r"peam.model\.safetensors is not there: run what makes it first"):
        built(recipe.stage_config("finish", tmp_path))


def test_peam_does_not_overflow_in_half_precision(caplog: pytest.LogCaptureFixture) -> None:
    """The same PEAM with numbers of 1e5 between its convolutions, which float16 does not hold."""
    pipeline, canvas = NanoRestorer.load(dtype=torch.float16), smooth(1, 24, 32)
    wanted = pipeline.restore(canvas)
    with torch.no_grad():
        for peam in pipeline.guidance.peam.values():
            first, *inner, last = peam.convs  # type: ignore[misc,union-attr]
            first.weight.mul_(1e5)
            last.weight.div_(1e5)
            for conv in (first, *inner):
                conv.bias.mul_(1e5)
    assert (pipeline.restore(canvas) - wanted).abs().max() <= 2 / 255
    assert not caplog.records
    assert {p.dtype for p in pipeline.unet.parameters()} == {torch.float16}
