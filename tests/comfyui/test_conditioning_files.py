"""CONDITIONING saved by one prompt and loaded by the next, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pgp_core.conditioning import entries as conditioning
from pgp_core.files.checkpoints import read_safetensors
from pgp_core.restorers.nano import model as nano

from . import pictures
from .comfy_server import RunFailed, Server

LISTED = "PGPDiffSRLoadConditioning"


def _save(source: list[Any], prefix: str, **inputs: Any) -> dict[str, Any]:
    inputs |= {"conditioning": source, "filename_prefix": prefix}
    return {"class_type": "PGPDiffSRSaveConditioning", "inputs": inputs}


def _load(name: str) -> dict[str, Any]:
    return {"class_type": LISTED, "inputs": {"conditioning_name": name}}


def _names(server: Server) -> Any:
    """The loader's list, as a refresh of the page reads it."""
    schema = server.get_json(f"/object_info/{LISTED}")[LISTED]
    return schema["input"]["required"]["conditioning_name"][1]["options"]


def _sampling(positive: list[Any], negative: list[Any], name: str) -> dict[str, Any]:
    """Three guided steps of nano; the latent and the picture are saved."""
    sampler = {"seed": 3, "steps": 3, "cfg": 1.5, "sampler_name": "euler", "scheduler": "ddim_uniform", "denoise": 1.0}
    links = {"model": ["apply", 0], "positive": positive, "negative": negative, "latent_image": ["empty", 0]}
    apply = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    apply |= {"model": ["nano", 0], "model_patch": ["nano", 1], "image": ["canvas", 0]}
    return {
        "nano": {"class_type": "PGPDiffSRLoadNano", "inputs": {}},
        "canvas": {"class_type": "LoadImage", "inputs": {"image": "conditioning.png"}},
        "encode": {"class_type": "VAEEncode", "inputs": {"pixels": ["canvas", 0], "vae": ["nano", 2]}},
        "empty": {"class_type": "LatentMultiply", "inputs": {"samples": ["encode", 0], "multiplier": 0.0}},
        "apply": {"class_type": "PGPDiffSRApply", "inputs": apply},
        "sample": {"class_type": "KSampler", "inputs": {**sampler, **links}},
        "add": {"class_type": "LatentAdd", "inputs": {"samples1": ["sample", 0], "samples2": ["encode", 0]}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["add", 0], "vae": ["nano", 2]}},
        "latent": {"class_type": "SaveLatent", "inputs": {"samples": ["sample", 0], "filename_prefix": f"{name}/l"}},
        "picture": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": f"{name}/p"}},
    }


def _results(server: Server, prompt: dict[str, Any], name: str) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Latent, picture, and what every node showed."""
    outputs = server.run(prompt)["outputs"]
    (picture,) = outputs["picture"]["images"]
    (latent,) = (server.folder / "output" / name).glob("*.latent")
    return load_file(latent)["latent_tensor"], pictures.read(server.picture(picture)), outputs


def test_saved_contexts_give_the_same_picture_to_the_bit(server: Server, tmp_path: Path) -> None:
    server.upload(pictures.save(pictures.smooth(5, 64, 48), tmp_path / "c.png"), "conditioning.png")
    prompt = _sampling(["nano", 3], ["nano", 4], "direct")
    prompt["save +"] = _save(["nano", 3], "conditioning/nano positive", prompt="clean and sharp, ü")
    prompt["save -"] = _save(["nano", 4], "conditioning/sub/nano negative")
    latent, picture, outputs = _results(server, prompt, "direct")
    positive = outputs["save +"]["text"][0].removeprefix("conditioning/")
    negative = outputs["save -"]["text"][0].removeprefix("conditioning/")
    assert (positive, negative) == ("nano positive_00001_.safetensors", "sub/nano negative_00001_.safetensors")
    listed = [n.replace("\\", "/") for n in _names(server)]
    assert {positive, negative} <= set(listed)

    prompt = _sampling(["load +", 0], ["load -", 0], "loaded")
    prompt |= {"load +": _load(positive), "load -": _load(str(Path(negative)))}
    loaded_latent, loaded_picture, _ = _results(server, prompt, "loaded")
    assert torch.equal(loaded_latent, latent)
    assert torch.equal(loaded_picture, picture)

    # The other way round, so that the equality means something.
    prompt = _sampling(["load -", 0], ["load +", 0], "swapped")
    prompt |= {"load +": _load(positive), "load -": _load(str(Path(negative)))}
    assert not torch.equal(_results(server, prompt, "swapped")[0], latent)

    # The command line reads the same file, and gets nano's own context.
    saved = conditioning.load(server.folder / "output" / "conditioning" / positive)
    assert saved.prompt == "clean and sharp, ü"
    contexts, _ = read_safetensors(nano.FOLDER / nano.CONTEXTS_FILE)
    ours = conditioning.to_sampling(saved.entries, (64, 48))
    assert torch.equal(ours.context, contexts["positive.context"].float())
    assert torch.equal(ours.pooled, contexts["positive.pooled"].float())
    assert ours.time_ids.tolist() == [list(nano.TIME_IDS)]


def test_a_file_that_changed_is_read_again(server: Server) -> None:
    file = server.folder / "models" / "conditioning" / "changing.safetensors"
    prompt = {"load": _load(file.name), "save": _save(["load", 0], "conditioning/copy")}
    for value in (1.0, 2.0):
        conditioning.save(file, [[torch.full((1, 4, 8), value), {"pooled_output": torch.ones(1, 4)}]])
        (name,) = server.run(prompt)["outputs"]["save"]["text"]
        ((context, _),) = conditioning.load(server.folder / "output" / name).entries
        assert torch.equal(context, torch.full((1, 4, 8), value))


def test_without_a_prompt_none_is_written(server: Server) -> None:
    """Core calls its graph "prompt" too; that is not what the file holds."""
    prompt = {"nano": {"class_type": "PGPDiffSRLoadNano", "inputs": {}}, "save": _save(["nano", 3], "conditioning/x")}
    (name,) = server.run(prompt)["outputs"]["save"]["text"]
    assert conditioning.load(server.folder / "output" / name).prompt == ""


@pytest.mark.parametrize("prefix", ["../outside", "conditioning/../../outside", "/tmp/pgp-outside"])
def test_a_prefix_that_leads_out_of_the_output_folder_is_refused(prefix: str, server: Server) -> None:
    prompt = {"nano": {"class_type": "PGPDiffSRLoadNano", "inputs": {}}, "save": _save(["nano", 3], prefix)}
    with pytest.raises(RunFailed, match=r"^PGPDiffSRSaveConditioning: .*ConditioningError: .*output folder"):
        server.run(prompt)
    assert not list(server.folder.rglob("*outside*"))


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "not there.safetensors", "", "notes.txt"])
def test_a_name_that_is_not_in_the_list_is_refused(name: str, server: Server) -> None:
    conditioning.save(server.folder / "models" / "secret.safetensors", [[torch.ones(1, 4, 8), {}]])
    (server.folder / "models" / "conditioning").mkdir(exist_ok=True)
    (server.folder / "models" / "conditioning" / "notes.txt").write_text("no model")
    with pytest.raises(RunFailed, match="value_not_in_list"):
        server.run({"load": _load(name), "save": _save(["load", 0], "conditioning/never")})


def test_another_kind_of_file_is_said_on_the_node(server: Server) -> None:
    folder = server.folder / "models" / "conditioning"
    folder.mkdir(exist_ok=True)
    (folder / "guidance.safetensors").write_bytes((nano.FOLDER / nano.GUIDANCE_FILE).read_bytes())
    (folder / "broken.safetensors").write_bytes(b"\0" * 100)
    for name, words in {"guidance.safetensors": "it is PGP-DiffSR guidance", "broken.safetensors": "damaged"}.items():
        with pytest.raises(RunFailed, match=rf"^{LISTED}: .*{words}"):
            server.run({"load": _load(name), "save": _save(["load", 0], "conditioning/never")})
