"""The same model from every kind of file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sdxl_files
import torch
from safetensors.torch import save_file
from sdxl_scene import SHORT, Everything, picture

from pgp_core.codecs.vae import VAE, load_vae
from pgp_core.errors import CheckpointError
from pgp_core.files.diffusers_folder import weight_files
from pgp_core.files.weights import open_weights, read_converted
from pgp_core.guidance.convert import convert
from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.restorer import SDXLRestorer
from pgp_core.unet.plan import load_plan
from pgp_core.unet.topology import KeyMap, split_block


def test_the_published_file_and_its_conversion_are_bit_equal(
    files: Everything, pipeline: SDXLRestorer, tmp_path: Path
) -> None:
    unet, guidance = convert(files.faithdiff, tmp_path, torch.float32)
    expected = pipeline.restore(picture(), SHORT)
    for model, other in ((unet, guidance), (files.faithdiff, guidance), (unet, files.faithdiff)):
        twin = SDXLRestorer.load(Given(model=model, guidance=other, base=files.checkpoint, **files.saved), say=str)
        assert torch.equal(twin.restore(picture(), SHORT), expected)


def test_a_plan_with_gaps_is_the_pruned_file(files: Everything, tmp_path: Path) -> None:
    plan, names = load_plan("pgp-sdxl"), KeyMap()
    kept = {k: v for k, v in files.unet.items() if not (b := split_block(k)) or plan.keeps(*b)}
    assert len(kept) < len(files.unet)
    save_file({names.to_ldm(k): v.contiguous() for k, v in kept.items()}, tmp_path / "pruned.safetensors")
    save_file(kept, tmp_path / "diffusers.safetensors")
    rest: Any = {"guidance": files.faithdiff, "base": files.sdxl, **files.saved}
    results = [
        SDXLRestorer.load(Given(model=model, plan=p, **rest), say=str)
        for model, p in (
            (files.faithdiff, plan),
            (files.checkpoint, plan),
            (None, plan),
            (tmp_path / "pruned.safetensors", None),
            (tmp_path / "diffusers.safetensors", plan),
        )
    ]
    assert [r.name for r in results] == ["pgp-sdxl"] * 3 + ["pruned", "pgp-sdxl"]
    stack: Any = results[0].unet.get_submodule("up_blocks.0.attentions.1.transformer_blocks")
    assert list(stack._modules) == ["0", "3", "6", "9"]
    pictures = [r.restore(picture(), SHORT) for r in results]
    assert all(torch.equal(p, pictures[0]) for p in pictures[1:])


def test_weights_are_read_in_groups_and_converted(
    files: Everything, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(files.weights, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    names = {k: f"new.{k}" for k in files.unet}
    for path, opens in ((files.faithdiff, 10), (tmp_path / "old.bin", 1)):
        opened = 0

        def count(path: Path = path) -> Any:
            nonlocal opened
            opened += 1
            return open_weights(path)

        total = sum(v.nbytes for v in files.unet.values())
        monkeypatch.setattr("pgp_core.files.weights._GROUP", total // 10)
        out = read_converted(count, names, "cpu", torch.bfloat16)
        assert abs(opened - opens) <= 1, "a file that cannot be mapped is read once"
        assert all(torch.equal(out[f"new.{k}"], v.bfloat16()) for k, v in files.unet.items())


def test_shards_are_read_together(files: Everything, tmp_path: Path, pipeline: SDXLRestorer) -> None:
    shutil.copytree(files.sdxl, tmp_path / "sdxl")
    unet = tmp_path / "sdxl/unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    keys = list(files.unet)
    for i, part in enumerate((keys[:700], keys[700:]), 1):
        save_file({k: files.unet[k] for k in part}, unet / f"diffusion_pytorch_model.fp16-0000{i}-of-00002.safetensors")
    twin = SDXLRestorer.load(Given(base=tmp_path / "sdxl", guidance=files.faithdiff, prompt="a red house"), say=str)
    assert torch.equal(twin.restore(picture(), SHORT), pipeline.restore(picture(), SHORT))
    (unet / "diffusion_pytorch_model.fp16-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="1 of 2"):
        weight_files(unet)


def test_a_vae_of_every_file_is_the_same(files: Everything, tmp_path: Path) -> None:
    weights = sdxl_files.vae().state_dict()
    save_file(weights, tmp_path / "diffusers.safetensors")
    save_file({k: v.contiguous() for k, v in sdxl_files.ldm_vae(weights).items()}, tmp_path / "ldm.safetensors")
    rgb = picture()
    expected = sdxl_files.vae().encode(rgb * 2 - 1).latent_dist.mode() * 0.13025
    for path in (
        files.sdxl / "vae", files.checkpoint, tmp_path / "diffusers.safetensors", tmp_path / "ldm.safetensors"
    ):  # fmt: skip
        found = load_vae(path)
        assert (found.channels, found.factor, found.scaling_factor) == (4, 8, 0.13025)
        with torch.no_grad():
            assert torch.equal(found.encode(rgb), expected)
            assert found.decode(expected).shape == rgb.shape


def test_a_folder_says_how_its_latents_are_scaled(files: Everything, tmp_path: Path) -> None:
    shutil.copytree(files.sdxl / "vae", tmp_path / "vae")
    config = json.loads((tmp_path / "vae/config.json").read_text())
    (tmp_path / "vae/config.json").write_text(json.dumps({**config, "scaling_factor": 0.5, "shift_factor": 0.1}))
    with torch.no_grad():
        ours = load_vae(tmp_path / "vae").encode(picture())
        mode = sdxl_files.vae().encode(picture() * 2 - 1).latent_dist.mode()
    assert torch.allclose(ours, (mode - 0.1) * 0.5, atol=1e-6)


@torch.no_grad()
def test_large_canvases_go_through_the_vae_in_tiles() -> None:
    """Tiles of 1024 pixels: the VAE never sees more at once."""
    vae = VAE(sdxl_files.vae())
    seen: list[int] = []
    for part in (vae.module.encoder, vae.module.decoder):
        part.register_forward_pre_hook(lambda _m, x: seen.append(x[0].shape[-1] * x[0].shape[-2]))
    rgb = picture(height=32, width=1056)
    z = vae.encode(rgb)
    assert z.shape == (1, 4, 4, 132) and len(seen) == 2 and max(seen) <= 1024 * 32
    seen.clear()
    assert vae.decode(z).shape == rgb.shape
    assert len(seen) == 2 and max(seen) <= 128 * 4
