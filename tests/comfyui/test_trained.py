"""What training leaves, in ComfyUI: the same as on diffusers; see ``checks/trained.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import rounding
import torch
import trained_lora
import trained_runs

from pgp_core.conditioning.conditioning import Conditioning
from pgp_core.files.checkpoints import read_safetensors
from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.loading import find_unet, read_guidance
from pgp_core.sampling.denoiser import Denoiser
from pgp_core.sampling.euler import restore_once
from pgp_core.sampling.options import SampleOptions
from pgp_core.unet import lora
from pgp_core.unet.shape import UNetShape

from .diffusers_side import called
from .in_process import Checks, Driver

SECONDS = 200
SIZES = (136.0, 104.0, 0.0, 0.0, 136.0, 104.0)
#: Core's latents on the wire are not scaled.
SCALING = 0.13025


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("peft")
    out: Path = tmp_path_factory.mktemp("trained")
    trained_runs.make(out / "files")
    return out


@pytest.fixture(scope="module")
def checks(driver: Driver, folder: Path) -> Checks:
    return driver.run(folder, SECONDS, "trained")


def _unet(runs: Path, run: str) -> tuple[torch.nn.Module, UNetShape]:
    """Fine-tuned, with a run's LoRA added to its weights."""
    found = find_unet(Given(runs / "finetune" / "unet.safetensors"), str)
    unet = found.read("cpu", torch.float32)
    lora.merge(unet, read_safetensors(runs / run / "lora.safetensors")[0])
    return unet, found.info.shape


def _conditioning() -> Conditioning:
    g = torch.Generator().manual_seed(1)
    return Conditioning.of_prompt(torch.randn(1, 7, 32, generator=g), torch.randn(1, 32, generator=g), SIZES)


def test_a_healing_lora_goes_through_core_s_loader(
    checks: Checks, folder: Path, measured: Callable[[str, float], None]
) -> None:
    result, tensors = checks["trained_files"], checks.tensors("trained_files")
    trained_lora.all_taken(result["healing"])
    assert result["healing changes"] > 1e-2
    with torch.inference_mode():
        unet, _ = _unet(folder / "files" / "runs", "heal")
        expected = called(unet, tensors["z_l"], 500, _conditioning())
    difference = float((tensors["healed"] - expected).abs().max())
    measured("a healing LoRA of training, by core and merged on diffusers", difference)
    assert difference <= rounding.bound(rounding.NETWORK, expected)


def test_one_step_with_what_was_trained_is_the_same_on_both_backbones(
    checks: Checks, folder: Path, measured: Callable[[str, float], None]
) -> None:
    result, tensors = checks["trained_files"], checks.tensors("trained_files")
    trained_lora.all_taken(result["one step"])
    assert "UNTRAINED" not in result["said"]
    runs = folder / "files" / "runs"
    with torch.inference_mode():
        unet, shape = _unet(runs, "distill-2")
        guidance = read_guidance(runs / "finetune" / "guidance.safetensors", shape, "cpu", torch.float32, str)
        features = guidance.features(tensors["image"].movedim(-1, 1))
        denoiser = Denoiser(unet, guidance, features, _conditioning(), None, SampleOptions(cfg=1.0))
        expected = restore_once(denoiser, tensors["z_l"] * SCALING, 1)
    difference = float((tensors["z_h"] * SCALING - expected).abs().max())
    measured("one step of what was trained", difference)
    assert difference <= rounding.bound(rounding.NETWORK, expected)
