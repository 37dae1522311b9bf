"""Models in ComfyUI in the layouts in which users have them; see ``checks/as_found.py`` for what is done there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faithdiff_file
import found_files
import pytest
import rounding
import torch
from found_files import ldm, prefixed, unet
from safetensors.torch import save_file

from .in_process import Checks, Driver

SECONDS = 500
PREFIXES = ("module.", "_orig_mod.", "model.diffusion_model.", "unet.", "ema_model.", "module._orig_mod.", "net.")


@pytest.fixture(scope="module")
def checks(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    out: Path = tmp_path_factory.mktemp("as_found")
    files = out / "files"
    found, scaled, broken = (files / name for name in ("found", "scaled", "broken"))
    for folder in (found / "ComfyUI", scaled, broken):
        folder.mkdir(parents=True)
    save_file(ldm(), files / "plain.safetensors")
    for i, prefix in enumerate(PREFIXES):
        save_file(prefixed(prefix, ldm() if i % 2 else unet()), found / f"{prefix}safetensors")
    torch.save({"state_dict": {"module": unet()}}, found / "wrapped.ckpt")
    save_file(ldm(), found / "v.safetensors", {"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"})
    found_files.write_shards(found / "shards", "model", unet(), 2)
    found_files.write_shards(found / "xl" / "unet", "diffusion_pytorch_model", unet(), 2)
    scheduler = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    (found / "xl" / "scheduler").mkdir()
    (found / "xl" / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    weights = {k: v.half() for k, v in faithdiff_file.state_dict().items()}
    torch.save(weights, files / "FaithDiff.bin")
    torch.save(prefixed("module.unet.", weights), files / "FaithDiff-prefixed.bin")
    for style in ("old", "new"):
        save_file(found_files.scaled(ldm(), style), scaled / f"{style}.safetensors")
    for name, value in {"nan": float("nan"), "large": 1e6}.items():
        key = "middle_block.1.proj_in.weight"
        save_file(
            {**ldm(), key: torch.full_like(ldm()[key], value, dtype=torch.float32)}, broken / f"{name}.safetensors"
        )
    return driver.run(out, SECONDS, "as_found")


def test_every_layout_is_the_plain_model(checks: Checks) -> None:
    found = checks["found"]
    assert len(found) == len(PREFIXES) + 2 + 2 * 3
    assert [name for name, result in found.items() if not result["same"]] == []
    for name, result in found.items():
        v = name == "v.safetensors" or name.startswith("xl/")
        assert (result["type"], result["zsnr"]) == (("V_PREDICTION", True) if v else ("EPS", False)), name
    said = found["shards/model-00001-of-00002.safetensors"]["said"]
    assert len(said) == 1 and "is one of 2 files of one model: all are taken" in said[0]


def test_core_s_reader_gives_the_same(checks: Checks) -> None:
    results = checks["found_by_core_s_reader"]
    assert len(results) == 3 and all(results.values())


def test_guidance_under_a_prefix_is_the_same(checks: Checks) -> None:
    assert checks["found_guidance"]["same"] and checks["found_guidance"]["tensors"] > 50


@pytest.mark.parametrize("style", ["old", "new"])
def test_fp8_with_factors_is_what_core_makes_of_it(style: str, checks: Checks) -> None:
    found = checks["scaled"][style]
    assert found["layers"] > 500
    # Ours is rounded to float16, the type of the file's other weights, once.
    assert found["worst"] <= 2**-11


#: What a file can say: prediction, zero terminal SNR, and what core's loader reads of it.
_KEPT: dict[str, tuple[str, bool, Any]] = {
    "none": ("epsilon", False, ["EPS", False]),
    "discrete eps False": ("epsilon", False, ["EPS", False]),
    # Core reads ztsnr beside v_pred only.
    "discrete eps True": ("epsilon", True, ["EPS", False]),
    "discrete v_prediction False": ("v_prediction", False, ["V_PREDICTION", False]),
    "discrete v_prediction True": ("v_prediction", True, ["V_PREDICTION", True]),
    "discrete x0 False": ("sample", False, ["EPS", False]),
    "discrete x0 True": ("sample", True, ["EPS", False]),
}


def test_a_saved_model_is_sampled_as_before_or_not_saved(checks: Checks) -> None:
    results = checks["saved_samplings"]
    assert len(results) == 1 + 12 + 5 + 5
    for name, result in results.items():
        if name not in _KEPT:
            kind, text = result["refused"]
            assert kind == "CheckpointError" and "another way than SDXL" in text and "before the node" in text, name
            continue
        prediction, zero_snr, core = _KEPT[name]
        assert result["difference"] <= rounding.LATENT, name
        assert (result["prediction"], result.get("zero_snr", False), result["core"]) == (prediction, zero_snr, core), (
            name
        )


def test_weights_that_are_not_finite_are_named(checks: Checks) -> None:
    results = checks["not_finite"]
    assert results["large torch.float32"] == []
    for name, words in {
        "large torch.float16": "too large for float16",
        "nan torch.float32": "not finite",
        "nan torch.float16": "not finite",
    }.items():
        kind, text = results[name]
        assert kind == "CheckpointError" and words in text and "middle_block.1.proj_in.weight" in text, name
