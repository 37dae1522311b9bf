"""A whole run against the authors' modules and the formulas, in plain loops."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import sdxl_files
import torch
from rounding import difference
from sdxl_scene import SHORT, Everything, exact, picture, schedule

from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.restorer import SDXLRestorer
from pgp_core.sampling.options import SampleOptions


def agree(ours: torch.Tensor, latent: torch.Tensor, expected: torch.Tensor, allowed: float) -> None:
    """A restored picture is the oracle's."""
    assert ours.shape == (1, 3, 64, 64) and ours.dtype == torch.float32
    assert difference(ours, expected) <= allowed
    # Neither saturated nor flat, or the comparison would say little.
    assert float(expected.std()) > 0.02 and float(latent.std()) > 0.1


def test_a_whole_run_is_the_authors_and_the_default(files: Everything, pipeline: SDXLRestorer) -> None:
    ours = pipeline.restore(picture())
    agree(ours, *exact(files, picture(), 20, 5.0, 0, "epsilon", "lr"))
    assert torch.equal(pipeline.restore(picture(), SampleOptions(steps=20, cfg=5.0, seed=0, start="lr")), ours)


@pytest.mark.parametrize(("steps", "cfg", "start"), [(20, 5.0, "noise"), (3, None, "lr")], ids=["noise", "no cfg"])
def test_another_run_is_the_authors(
    steps: int, cfg: float | None, start: str, files: Everything, pipeline: SDXLRestorer
) -> None:
    ours = pipeline.restore(picture(), SampleOptions(steps=steps, cfg=cfg or 1.0, seed=7, start=start))
    agree(ours, *exact(files, picture(), steps, cfg, 7, "epsilon", start))


def test_guidance_matters(files: Everything, pipeline: SDXLRestorer) -> None:
    _, without, allowed = exact(files, picture(), 2, 5.0, 3, "epsilon", "lr", aligned=False)
    assert difference(pipeline.restore(picture(), SHORT), without) > max(1e-3, 10 * allowed)
    assert difference(pipeline.restore(picture(), replace(SHORT, strength=0.0)), without) <= allowed


def test_plain_sdxl_starts_from_the_latent_and_says_so(files: Everything) -> None:
    said: list[str] = []
    plain = SDXLRestorer.load(Given(base=files.sdxl, prompt="a red house"), say=said.append)
    assert plain.recipe.start == "lq" and len(said) == 1 and "guidance" in said[0]
    _, expected, allowed = exact(files, picture(), 2, 5.0, 3, "epsilon", "noise", aligned=False)
    assert difference(plain.restore(picture(), replace(SHORT, start="noise")), expected) <= allowed


def test_v_prediction_works_and_is_said(files: Everything, tmp_path: Path) -> None:
    _, expected, allowed = exact(files, picture(), 2, 5.0, 3, "v_prediction", "noise", aligned=False)
    shutil.copytree(files.sdxl, tmp_path / "v")
    (tmp_path / "v/scheduler/scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    marked = sdxl_files.checkpoint(tmp_path / "v.safetensors", files.unet, v_pred=torch.zeros(0))
    for source in (tmp_path / "v", marked):
        said: list[str] = []
        pipeline = SDXLRestorer.load(Given(base=source, **files.saved), say=said.append)
        assert any("v_prediction" in line for line in said)
        ours = pipeline.restore(picture(), replace(SHORT, start="noise"))
        assert difference(ours, expected) <= allowed


def test_the_user_s_spacing_goes_before_the_files(files: Everything, tmp_path: Path) -> None:
    """As a folder whose scheduler says so: Lightning's single files cannot."""
    shutil.copytree(files.sdxl, tmp_path / "t")
    (tmp_path / "t/scheduler/scheduler_config.json").write_text('{"timestep_spacing": "trailing"}')
    told = SDXLRestorer.load(Given(base=tmp_path / "t", **files.saved), say=str)
    plain = SDXLRestorer.load(Given(base=files.sdxl, **files.saved), say=str)
    options = replace(SHORT, start="noise")
    expected = told.restore(picture(), options)
    assert not torch.equal(plain.restore(picture(), options), expected)
    assert torch.equal(plain.restore(picture(), replace(options, spacing="trailing")), expected)


def test_zero_snr_is_comfyuis_rescaled_schedule(files: Everything, tmp_path: Path) -> None:
    """The square roots shifted to end in zero and scaled to keep the first (Lin et al., algorithm 1)."""
    from diffusers import EulerDiscreteScheduler

    marked = sdxl_files.checkpoint(tmp_path / "z.safetensors", files.unet, v_pred=torch.zeros(0), ztsnr=torch.zeros(0))
    pipeline = SDXLRestorer.load(Given(base=marked, **files.saved), say=str)
    assert pipeline.zero_snr and pipeline.prediction == "v_prediction"
    roots = schedule()[0] ** 0.5
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    sigma = ((1 - roots[501] ** 2) / roots[501] ** 2) ** 0.5
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True,
        timestep_spacing="leading", steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(2)
    assert float(scheduler.sigmas[0]) == pytest.approx(sigma, rel=1e-4)
    assert torch.isfinite(pipeline.restore(picture(), replace(SHORT, start="noise"))).all()
