"""The command line's models as users have them: folders, shards, and schedulers that say how to sample."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import found_files
import pytest
import torch
from safetensors.torch import load_file, save_file
from sdxl_scene import SHORT, Everything, picture

from pgp_core.errors import PGPError
from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.loading import find_unet
from pgp_core.restorers.sdxl.restorer import SDXLRestorer
from pgp_core.sampling.euler import euler
from pgp_core.sampling.options import SampleOptions


def test_every_path_to_a_unet_gives_it(files: Everything, tmp_path: Path, pipeline: SDXLRestorer) -> None:
    shutil.copytree(files.sdxl, tmp_path / "sdxl")
    unet = tmp_path / "sdxl/unet"
    weights = load_file(unet / "diffusion_pytorch_model.safetensors")
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    index = found_files.write_shards(unet, "diffusion_pytorch_model", weights, 2)
    shard = unet / "diffusion_pytorch_model-00002-of-00002.safetensors"
    expected = pipeline.restore(picture(), SHORT)
    for path in (tmp_path / "sdxl", unet, index, shard):
        rest: Any = {"base": files.sdxl, "guidance": files.faithdiff, "prompt": "a red house"}
        said: list[str] = []
        found = SDXLRestorer.load(Given(model=path, **rest), say=said.append)
        assert torch.equal(found.restore(picture(), SHORT), expected), path
        assert [line for line in said if "one of 2 files" in line] == [
            f"{shard.name}: it is one of 2 files of one model: all are taken"
        ] * (path == shard)


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
def test_a_folder_s_timesteps_are_taken(spacing: str, files: Everything, tmp_path: Path) -> None:
    shutil.copytree(files.sdxl / "unet", tmp_path / "sdxl/unet")
    (tmp_path / "sdxl/scheduler").mkdir()
    settings = {"timestep_spacing": spacing, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    text = json.dumps(settings)
    (tmp_path / "sdxl/scheduler/scheduler_config.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    said: list[str] = []
    # Of a file in the folder as of the folder.
    for path in (tmp_path / "sdxl", tmp_path / "sdxl/unet/diffusion_pytorch_model.safetensors"):
        info = find_unet(Given(model=path), said.append).info
        assert (info.prediction, info.zero_snr, info.spacing) == ("v_prediction", True, spacing)
    times: list[float] = []

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        times.append(float(t[0]))
        return torch.zeros_like(x)

    euler(predict, torch.zeros(1, 4, 8, 8), "v_prediction", SampleOptions(steps=4), zero_snr=True, spacing=spacing)
    # By their definitions in "Common Diffusion Noise Schedules and Sample Steps are Flawed", with an offset of 1.
    wanted = {"leading": [751, 501, 251, 1], "trailing": [999, 749, 499, 249], "linspace": [999, 666, 333, 0]}
    assert times == wanted[spacing]


def test_metadata_alone_makes_the_picture_that_the_folder_makes(files: Everything, tmp_path: Path) -> None:
    save_file(files.unet, tmp_path / "v.safetensors", {"modelspec.prediction_type": "v"})
    shutil.copytree(files.sdxl, tmp_path / "sdxl")
    (tmp_path / "sdxl/scheduler/scheduler_config.json").write_text(json.dumps({"prediction_type": "v_prediction"}))
    said: list[str] = []
    made = [
        SDXLRestorer.load(Given(model=model, base=sdxl, guidance=files.faithdiff, prompt="a house"), say=said.append)
        for model, sdxl in ((tmp_path / "v.safetensors", files.sdxl), (None, tmp_path / "sdxl"))
    ]
    one, other = (pipeline.restore(picture(), SHORT) for pipeline in made)
    assert torch.equal(one, other)
    assert sum("is sampled with v_prediction" in line for line in said) == 2


def test_a_vae_s_own_file_in_its_folder_keeps_its_scale(files: Everything, tmp_path: Path) -> None:
    from pgp_core.codecs.vae import load_vae

    shutil.copytree(files.sdxl / "vae", tmp_path / "vae")
    config = json.loads((tmp_path / "vae/config.json").read_text())
    (tmp_path / "vae/config.json").write_text(json.dumps({**config, "scaling_factor": 0.5}))
    for path in (tmp_path, tmp_path / "vae", tmp_path / "vae/diffusion_pytorch_model.safetensors"):
        assert load_vae(path).scaling_factor == 0.5


@pytest.mark.parametrize("name", ["unet", "vae", "text_encoder"])
def test_no_message_sends_the_user_to_what_another_refuses(name: str, files: Everything, tmp_path: Path) -> None:
    """A component for the whole: the folder that is named is one that works."""
    with pytest.raises(PGPError, match=f"give {files.sdxl} as --base"):
        SDXLRestorer.load(Given(base=files.sdxl / name, **files.saved), say=str)
    with pytest.raises(PGPError, match=r"holds .*, no VAE: give SDXL's VAE") as error:
        SDXLRestorer.load(Given(model=files.faithdiff, vae=files.faithdiff, base=files.sdxl, **files.saved), say=str)
    assert "--vae" not in str(error.value)
