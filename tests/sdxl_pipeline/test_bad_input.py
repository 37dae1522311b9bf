"""Given that do not go together: one clear line each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sdxl_files
import torch
from safetensors.torch import load_file, save_file
from sdxl_scene import Everything, peam_file

from pgp_core.conditioning import entries as conditioning
from pgp_core.errors import CheckpointError, ConditioningError, GuidanceError, PGPError
from pgp_core.files.weights import open_weights
from pgp_core.guidance.module import KEY_PREFIX, METADATA_KEY, Guidance, GuidanceSpec
from pgp_core.restorers.given import Given
from pgp_core.restorers.nano import model as nano_files
from pgp_core.restorers.sdxl.restorer import SDXLRestorer


def _case(name: str, files: Everything, tmp: Path, s1: dict[str, Path]) -> tuple[Given, type[PGPError], str]:
    """Given that do not go together, and what is to be said of them."""
    good: Any = {"model": files.faithdiff, "base": files.sdxl}
    unet = {k: v for k, v in files.unet.items() if not k.startswith("add_embedding")}
    if name == "sd15":
        save_file(unet, tmp / "sd15.safetensors")
        return Given(**{**good, "model": tmp / "sd15.safetensors"}), CheckpointError, r"1\.5"
    if name == "flux":
        save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, tmp / "flux.safetensors")
        return Given(**{**good, "model": tmp / "flux.safetensors"}), CheckpointError, "diffusion transformer"
    if name == "inpainting":
        wide = {**files.unet, "conv_in.weight": torch.zeros(64, 9, 3, 3)}
        save_file(wide, tmp / "inpainting.safetensors")
        return Given(**{**good, "model": tmp / "inpainting.safetensors"}), CheckpointError, "inpainting"
    if name == "nano":
        return Given(**{**good, "model": nano_files.FOLDER / nano_files.UNET_FILE}), CheckpointError, "leave out"
    if name == "nano's guidance":
        other = {"guidance": nano_files.FOLDER / nano_files.GUIDANCE_FILE}
        return Given(**good, **other), GuidanceError, "guides pgp-nano"
    if name == "guidance of SDXL's width":
        spec = GuidanceSpec()
        guidance = Guidance(spec)
        weights = {KEY_PREFIX + k: v for k, v in guidance.state_dict().items()}
        save_file(weights, tmp / "g.safetensors", {METADATA_KEY: json.dumps(spec.to_json())})
        return Given(**good, guidance=tmp / "g.safetensors"), GuidanceError, "320 channels .* has 64"
    if name == "guidance of another scale":
        with open_weights(peam_file(tmp / "a.safetensors")) as file:
            data = json.loads(file.metadata[METADATA_KEY])
            data["sites"][0]["scale"] = 8
            weights = {k: file.read(k) for k in file.shapes}
            save_file(weights, tmp / "g.safetensors", {METADATA_KEY: json.dumps(data)})
        return Given(**good, guidance=tmp / "g.safetensors"), GuidanceError, "another scale"
    if name == "no guidance":
        return Given(**good, guidance=files.checkpoint), GuidanceError, "checkpoint.safetensors"
    if name == "lora":
        save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 2)}, tmp / "l.safetensors")
        return Given(**good, loras=(tmp / "l.safetensors",)), CheckpointError, "changes no layer"
    if name == "half a dora":
        save_file({"unet.conv_in.dora_scale": torch.zeros(1, 2)}, tmp / "l.safetensors")
        return Given(**good, loras=(tmp / "l.safetensors",)), CheckpointError, "incomplete: unet.conv_in has dora_scale"
    if name == "oft":
        save_file({"lora_unet_conv_in.oft_blocks": torch.zeros(1, 2, 2)}, tmp / "l.safetensors")
        return Given(**good, loras=(tmp / "l.safetensors",)), CheckpointError, "is OFT or BOFT"
    if name == "folder without lora":
        return Given(**good, loras=(files.sdxl,)), CheckpointError, "folder without adapter_model.safetensors"
    if name == "one-step lora in steps":
        return Given(**good, loras=(s1["s1"],)), CheckpointError, "one step"
    if name == "no conditioning":
        return Given(base=files.checkpoint), ConditioningError, "--conditioning FILE and --negative-conditioning FILE"
    if name == "no negative conditioning":
        return Given(base=files.checkpoint, conditioning=files.positive), ConditioningError, "--cfg 1 needs no negative"
    if name == "conditioning of another width":
        entries = [[torch.zeros(1, 5, 48), {"pooled_output": torch.zeros(1, 32)}]]
        conditioning.save(tmp / "c.safetensors", entries)
        return Given(**good, conditioning=tmp / "c.safetensors"), ConditioningError, "tokens of 48 .* takes 32 and 32"
    if name == "conditioning without pooled":
        conditioning.save(tmp / "c.safetensors", [[torch.zeros(1, 5, 32), {}]])
        return Given(**good, conditioning=tmp / "c.safetensors"), ConditioningError, "pooled"
    if name == "missing file":
        return Given(**{**good, "model": tmp / "no.safetensors"}), PGPError, "nothing is downloaded"
    if name == "component as whole folder":
        return Given(base=files.sdxl / "unet", guidance=files.faithdiff), PGPError, f"give {files.sdxl} as --base"
    if name == "no vae":
        return Given(model=files.faithdiff, **files.saved), CheckpointError, "--vae"
    if name == "vae without vae":
        return Given(**good, vae=files.faithdiff), CheckpointError, "holds a UNet of SDXL, no VAE"
    if name == "flux vae":
        weights = sdxl_files.vae().state_dict()
        weights["decoder.conv_in.weight"] = torch.zeros(96, 16, 3, 3)
        save_file(weights, tmp / "vae.safetensors")
        return Given(**good, vae=tmp / "vae.safetensors"), CheckpointError, "16 latent channels"
    if name == "incomplete vae":
        weights = {k: v for k, v in sdxl_files.vae().state_dict().items() if "up_blocks.1" not in k}
        save_file(weights, tmp / "vae.safetensors")
        return Given(**good, vae=tmp / "vae.safetensors"), CheckpointError, "lacks decoder.up_blocks.1"
    if name == "incomplete text encoder":
        shutil.copytree(files.sdxl, tmp / "sdxl")
        path = tmp / "sdxl/text_encoder_2/model.safetensors"
        weights = load_file(path)
        del weights["text_projection.weight"]
        save_file(weights, path, {"format": "pt"})
        return Given(base=tmp / "sdxl"), CheckpointError, "lacks text_projection"
    # What is left: folders that lack a component, or have a damaged one.
    shutil.copytree(files.sdxl, tmp / "sdxl")
    if name.startswith("damaged "):
        (tmp / "sdxl" / name.removeprefix("damaged ")).write_bytes(b"{")
        return (
            Given(base=tmp / "sdxl", guidance=files.faithdiff),
            CheckpointError,
            "cannot be read|get it again|config.json is not valid JSON",
        )
    shutil.rmtree(tmp / "sdxl" / name.removeprefix("without "))
    return Given(base=tmp / "sdxl", guidance=files.faithdiff), CheckpointError, name.removeprefix("without ")


# fmt: off
CASES = [
    "sd15", "flux", "inpainting", "nano", "nano's guidance", "guidance of SDXL's width", "guidance of another scale",
    "no guidance", "lora", "half a dora", "oft", "folder without lora", "one-step lora in steps", "no conditioning",
    "no negative conditioning",
    "no guidance", "lora", "half a dora", "oft", "folder without lora", "one-step lora in steps", "no conditioning",
    "no negative conditioning",
    "conditioning of another width", "conditioning without pooled", "missing file", "no vae",
    "component as whole folder", "vae without vae", "flux vae",
    "incomplete vae", "incomplete text encoder", "without vae", "without unet", "without text_encoder",
    "without text_encoder_2", "without tokenizer_2", "damaged vae/config.json",
    "damaged text_encoder_2/model.safetensors", "damaged tokenizer/vocab.json",
    "damaged unet/diffusion_pytorch_model.safetensors",
]
# fmt: on


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_line(name: str, files: Everything, tmp_path: Path, s1: dict[str, Path]) -> None:
    given, kind, words = _case(name, files, tmp_path, s1)
    with pytest.raises(kind, match=words) as error:
        SDXLRestorer.load(given, say=str)
    assert "\n" not in str(error.value)
