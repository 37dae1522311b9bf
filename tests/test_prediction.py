"""How a model is sampled: whoever says it, every command takes it, and what is written says it again."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import faithdiff_file
import pytest
import torch
from found_files import Weights, in_memory, ldm, prefixed, unet
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pgp_core.errors import CheckpointError
from pgp_core.files.weights import open_weights
from pgp_core.guidance.convert import convert
from pgp_core.unet.inspect import UNetInfo, inspect_unet
from pgp_core.unet.plan import load_plan
from pgp_core.unet.prune_file import prune_file, renumber_file

V, ZERO = {"v_pred": torch.zeros(0)}, {"ztsnr": torch.zeros(0)}


def info(more: Weights | None = None, metadata: Any = None, prefix: str = "", **scheduler: Any) -> UNetInfo:
    file = in_memory(prefixed(prefix, ldm()) | (more or {}), metadata, scheduler=scheduler)
    return inspect_unet(file)


@pytest.mark.parametrize(
    ("metadata", "prediction", "zero_snr"),
    [
        ({}, "epsilon", False),
        ({"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        ({"modelspec.prediction_type": "v"}, "v_prediction", False),
        ({"modelspec.prediction_type": "v_prediction"}, "v_prediction", False),
        ({"modelspec.prediction_type": "V-Prediction"}, "v_prediction", False),
        ({"modelspec.predict_key": "v"}, "v_prediction", False),
        ({"modelspec.predict_key": "epsilon"}, "epsilon", False),
        ({"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"}, "v_prediction", True),
        ({"ss_v2": "False", "ss_zero_terminal_snr": "False"}, "epsilon", False),
        ({"ss_zero_terminal_snr": "True"}, "epsilon", True),
        ({"modelspec.prediction_type": "sample"}, "sample", False),
        ({"pgp.model": json.dumps({"prediction": "epsilon", "zero_snr": True})}, "epsilon", True),
        ({"pgp.model": json.dumps({"prediction": "sample"})}, "sample", False),
    ],
)
def test_metadata_says_how(metadata: dict[str, str], prediction: str, zero_snr: bool) -> None:
    found = info(None, metadata)
    assert (found.prediction, found.zero_snr, found.notes) == (prediction, zero_snr, ())


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("inside", [False, True])
def test_keys_say_how_beside_the_unet_and_in_it(prefix: str, inside: bool) -> None:
    found = info(prefixed(prefix, V | ZERO) if inside else V | ZERO, prefix=prefix)
    assert (found.prediction, found.zero_snr) == ("v_prediction", True)
    assert not any(k.endswith(("v_pred", "ztsnr")) for k in found.keys)


def test_a_folder_s_scheduler_says_how() -> None:
    found = info(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    assert (found.prediction, found.zero_snr, found.spacing) == ("v_prediction", True, "trailing")
    assert info().spacing == "leading"


@pytest.mark.parametrize(
    ("more", "metadata", "scheduler", "prediction"),
    [
        (V, {"modelspec.prediction_type": "epsilon"}, {}, "v_prediction"),
        (V, {}, {"prediction_type": "epsilon"}, "v_prediction"),
        ({}, {"modelspec.prediction_type": "v"}, {"prediction_type": "epsilon"}, "epsilon"),
        ({}, {"modelspec.prediction_type": "v", "ss_v_parameterization": "False"}, {}, "v_prediction"),
        (V, {"pgp.model": json.dumps({"prediction": "epsilon"})}, {}, "epsilon"),
    ],
)
def test_who_contradicts_is_named(more: Weights, metadata: Any, scheduler: Any, prediction: str) -> None:
    found = info(more, metadata, **scheduler)
    assert found.prediction == prediction
    assert "contradicts itself" in found.notes[0] and f"{prediction} is taken" in found.notes[0]


@pytest.mark.parametrize(
    ("more", "metadata", "scheduler", "words"),
    [
        ({"edm_mean": torch.zeros(4), "edm_std": torch.ones(4)}, {}, {}, "EDM model"),
        ({"edm_vpred.sigma_max": torch.ones(1)}, {}, {}, "EDM model"),
        ({}, {}, {"_class_name": "EDMDPMSolverMultistepScheduler"}, "EDM model"),
        ({}, {}, {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "flow-matching"),
        ({}, {"modelspec.prediction_type": "flow"}, {}, r"'flow' \(modelspec.prediction_type\)"),
        ({}, {}, {"prediction_type": "flow_prediction"}, "flow_prediction"),
        ({}, {"pgp.model": json.dumps({"prediction": "dreams"})}, {}, "'dreams', which this release does not know"),
    ],
)
def test_other_kinds_are_refused_by_name(more: Weights, metadata: Any, scheduler: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as error:
        info(more, metadata, **scheduler)
    assert "found.bin" in str(error.value)


def test_what_is_not_followed_is_said() -> None:
    assert "LCM" in info(_class_name="LCMScheduler").notes[0]
    assert "beta_end 0.02" in info(beta_start=0.00085, beta_end=0.02, beta_schedule="scaled_linear").notes[0]
    assert info(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000).notes == ()


def _said_by(path: Path) -> dict[str, Any]:
    """What stands in a file, by safetensors' own reader."""
    with safe_open(path, "pt") as f:
        about = json.loads(f.metadata()["pgp.model"])
        spec = f.metadata()["modelspec.prediction_type"]
        return {"keys": {"v_pred", "ztsnr"} & set(f.keys()), "spec": spec, **about}


@pytest.mark.parametrize(("v", "zero"), [*itertools.product([False, True], repeat=2)])
def test_every_way_to_write_a_file_keeps_it(v: bool, zero: bool, tmp_path: Path) -> None:
    metadata = {"modelspec.prediction_type": "v"} if v else {}
    metadata |= {"ss_zero_terminal_snr": "True"} if zero else {}
    save_file(unet(), tmp_path / "in.safetensors", metadata)
    pruned, dense = tmp_path / "pruned.safetensors", tmp_path / "dense.safetensors"
    prune_file(tmp_path / "in.safetensors", load_plan("pgp-sdxl"), pruned)
    renumber_file(tmp_path / "in.safetensors", dense)
    save_file(
        {k: v.half() for k, v in faithdiff_file.state_dict().items()}, tmp_path / "FaithDiff.safetensors", metadata
    )
    converted, _ = convert(tmp_path / "FaithDiff.safetensors", tmp_path)
    for path in (pruned, dense, converted):
        said = _said_by(path)
        # Core's loader goes by these keys, others by modelspec.
        assert said["keys"] == set(["v_pred"] * v + ["ztsnr"] * zero)
        assert said["spec"] == ("v" if v else "epsilon")
        assert (said["prediction"], said.get("zero_snr", False)) == ("v_prediction" if v else "epsilon", zero)
        if path != dense:
            with open_weights(path) as file:
                again = inspect_unet(file)
            assert (again.prediction, again.zero_snr, again.notes) == (said["prediction"], zero, ())
    assert load_file(pruned).keys() - {"v_pred", "ztsnr"} < ldm().keys()
