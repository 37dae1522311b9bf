"""The command line with a full-size model: against the authors' modules and the formulas, in plain loops."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import faithdiff_file
import numpy as np
import pytest
import sdxl_files
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pgp_core import conditioning, lora, prompts
from pgp_core import nano as nano_files
from pgp_core.canvas import Size
from pgp_core.cli import main
from pgp_core.convert import convert
from pgp_core.diffusers_folder import weight_files
from pgp_core.errors import Cancelled, CheckpointError, ConditioningError, GuidanceError, PGPError
from pgp_core.faithdiff import GROUPS
from pgp_core.guidance import KEY_PREFIX, METADATA_KEY, Guidance, GuidanceSpec, Site
from pgp_core.one_step import Dial
from pgp_core.plan import load_plan
from pgp_core.sampling import SampleOptions
from pgp_core.sdxl_loading import Files
from pgp_core.sdxl_pipeline import SDXLPipeline
from pgp_core.sdxl_vae import VAE, load_vae
from pgp_core.topology import KeyMap, split_block
from pgp_core.unet_diffusers import build_unet
from pgp_core.upscale import upscale
from pgp_core.weights_file import open_weights, read_converted


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


class Everything:
    """Files made once for all tests."""

    def __init__(self, root: Path):
        self.root = root
        self.weights = faithdiff_file.state_dict()
        self.unet = {k: v for k, v in self.weights.items() if not k.startswith(GROUPS)}
        self.faithdiff = root / "FaithDiff.bin"
        torch.save(self.weights, self.faithdiff)
        self.sdxl = sdxl_files.folder(root / "sdxl", self.unet)
        self.checkpoint = sdxl_files.checkpoint(root / "checkpoint.safetensors", self.unet)
        self.positive, self.negative = root / "positive.safetensors", root / "negative.safetensors"
        for path, entries in zip(
            (self.positive, self.negative), prompts.encode(self.sdxl, ["a red house", ""]), strict=True
        ):
            conditioning.save(path, entries)

    @property
    def saved(self) -> dict[str, Path]:
        """Both prompts as files."""
        return {"conditioning": self.positive, "negative_conditioning": self.negative}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Everything:
    return Everything(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def pipeline(files: Everything) -> SDXLPipeline:
    return SDXLPipeline.load(Files(model=files.faithdiff, sdxl=files.sdxl, prompt="a red house"), say=str)


def picture(batch: int = 1, height: int = 64, width: int = 64, seed: int = 5) -> torch.Tensor:
    small = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)


SHORT = SampleOptions(steps=2, start="lr", seed=3)


# -- the whole run, written out in float64 -------------------------------------------------------------------


def schedule() -> tuple[np.ndarray, np.ndarray]:
    """Products of alphas and sigmas of SDXL's 1000 steps."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    return alphas, ((1 - alphas) / alphas) ** 0.5


class Oracle:
    """FaithDiff's inference from the facts: authors' modules, diffusers' UNet and VAE, Euler by hand."""

    def __init__(self, files: Everything, aligned: bool = True):
        self.unet: Any = build_unet(faithdiff_file.NARROW)
        self.unet.load_state_dict(files.unet)
        self.unet.double().eval()
        self.authors, self.vae, self.aligned = faithdiff_file.authors(), sdxl_files.vae().double(), aligned
        entries = [conditioning.load(p).entries[0] for p in (files.negative, files.positive)]
        self.context = torch.cat([c for c, _ in entries]).double()
        self.pooled = torch.cat([o["pooled_output"] for _, o in entries]).double()

    def latent(self, lq: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(lq.double() * 2 - 1).latent_dist.mode() * 0.13025

    def predict(self, x: torch.Tensor, t: int, lq: torch.Tensor, cfg: float | None) -> torch.Tensor:
        """Of [uncond, cond], or of cond alone."""
        n = 1 if cfg is None else 2
        height, width = lq.shape[-2:]
        ids = torch.tensor([[height, width, 0, 0, height, width]] * n, dtype=torch.float64)
        c = self.authors.encode(lq.double() * 2 - 1).repeat(n, 1, 1, 1)
        handles = []
        if self.aligned:
            conv_in = self.unet.get_submodule("conv_in")
            handles = [conv_in.register_forward_hook(lambda _m, _i, h: self.authors.align(h, c))]
        out = self.unet(
            x.repeat(n, 1, 1, 1),
            torch.tensor([float(t)] * n),
            encoder_hidden_states=self.context[-n:],
            added_cond_kwargs={"text_embeds": self.pooled[-n:], "time_ids": ids},
        ).sample
        for handle in handles:
            handle.remove()
        return out if cfg is None else out[:1] + cfg * (out[1:] - out[:1])

    @torch.no_grad()
    def run(self, lq: torch.Tensor, steps: int, cfg: float | None, seed: int, prediction: str, start: str) -> Any:
        alphas, sigmas = schedule()
        times = [1000 // steps * i + 1 for i in reversed(range(steps))]
        z_l = self.latent(lq)
        noise = torch.randn(tuple(z_l.shape), generator=torch.Generator().manual_seed(seed)).double()
        if start == "lr":
            scale = (sigmas[times[0]] ** 2 + 1) ** 0.5
            x = alphas[999] ** 0.5 * z_l + (1 - alphas[999]) ** 0.5 * scale * noise
        else:
            x = sigmas[times[0]] * noise
        for i, t in enumerate(times):
            sigma, following = sigmas[t], sigmas[times[i + 1]] if i + 1 < steps else 0.0
            out = self.predict(x / (sigma**2 + 1) ** 0.5, t, lq, cfg)
            if prediction == "v_prediction":
                x0 = x / (sigma**2 + 1) - out * sigma / (sigma**2 + 1) ** 0.5
                out = (x - x0) / sigma
            x = x + (following - sigma) * out
        return x, (self.vae.decode(x / 0.13025).sample / 2 + 0.5).clamp(0, 1)


def agree(ours: torch.Tensor, latent: torch.Tensor, expected: torch.Tensor) -> None:
    """A restored picture is the oracle's."""
    assert ours.shape == (1, 3, 64, 64) and ours.dtype == torch.float32
    assert float((ours - expected).abs().max()) <= 1e-4
    # Neither saturated nor flat, or the comparison would say little.
    assert float(expected.std()) > 0.02 and float(latent.std()) > 0.1


def test_a_whole_run_is_the_authors_and_the_default(files: Everything, pipeline: SDXLPipeline) -> None:
    ours = pipeline.restore(picture())
    agree(ours, *Oracle(files).run(picture(), 20, 5.0, 0, "epsilon", "lr"))
    assert torch.equal(pipeline.restore(picture(), SampleOptions(steps=20, cfg=5.0, seed=0, start="lr")), ours)


@pytest.mark.parametrize(("steps", "cfg", "start"), [(20, 5.0, "noise"), (3, None, "lr")], ids=["noise", "no cfg"])
def test_another_run_is_the_authors(
    steps: int, cfg: float | None, start: str, files: Everything, pipeline: SDXLPipeline
) -> None:
    ours = pipeline.restore(picture(), SampleOptions(steps=steps, cfg=cfg or 1.0, seed=7, start=start))
    agree(ours, *Oracle(files).run(picture(), steps, cfg, 7, "epsilon", start))


def test_guidance_matters(files: Everything, pipeline: SDXLPipeline) -> None:
    _, without = Oracle(files, aligned=False).run(picture(), 2, 5.0, 3, "epsilon", "lr")
    assert float((pipeline.restore(picture(), SHORT) - without).abs().max()) > 1e-3
    assert float((pipeline.restore(picture(), replace(SHORT, strength=0.0)) - without).abs().max()) <= 1e-4


def test_plain_sdxl_starts_from_the_latent_and_says_so(files: Everything) -> None:
    said: list[str] = []
    plain = SDXLPipeline.load(Files(sdxl=files.sdxl, prompt="a red house"), say=said.append)
    assert plain.start == "lq" and len(said) == 1 and "guidance" in said[0]
    _, expected = Oracle(files, aligned=False).run(picture(), 2, 5.0, 3, "epsilon", "noise")
    assert float((plain.restore(picture(), replace(SHORT, start="noise")) - expected).abs().max()) <= 1e-4


def test_v_prediction_works_and_is_said(files: Everything, tmp_path: Path) -> None:
    _, expected = Oracle(files, aligned=False).run(picture(), 2, 5.0, 3, "v_prediction", "noise")
    shutil.copytree(files.sdxl, tmp_path / "v")
    (tmp_path / "v/scheduler/scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    marked = sdxl_files.checkpoint(tmp_path / "v.safetensors", files.unet, v_pred=torch.zeros(0))
    for source in (tmp_path / "v", marked):
        said: list[str] = []
        pipeline = SDXLPipeline.load(Files(sdxl=source, **files.saved), say=said.append)
        assert any("v_prediction" in line for line in said)
        ours = pipeline.restore(picture(), replace(SHORT, start="noise"))
        assert float((ours - expected).abs().max()) <= 1e-4


def test_zero_snr_is_comfyuis_rescaled_schedule(files: Everything, tmp_path: Path) -> None:
    """The square roots shifted to end in zero and scaled to keep the first (Lin et al., algorithm 1)."""
    from diffusers import EulerDiscreteScheduler

    marked = sdxl_files.checkpoint(tmp_path / "z.safetensors", files.unet, v_pred=torch.zeros(0), ztsnr=torch.zeros(0))
    pipeline = SDXLPipeline.load(Files(sdxl=marked, **files.saved), say=str)
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


# -- the same model from other files -------------------------------------------------------------------------


def test_the_published_file_and_its_conversion_are_bit_equal(
    files: Everything, pipeline: SDXLPipeline, tmp_path: Path
) -> None:
    unet, guidance = convert(files.faithdiff, tmp_path, torch.float32)
    expected = pipeline.restore(picture(), SHORT)
    for model, other in ((unet, guidance), (files.faithdiff, guidance), (unet, files.faithdiff)):
        twin = SDXLPipeline.load(Files(model=model, guidance=other, sdxl=files.checkpoint, **files.saved), say=str)
        assert torch.equal(twin.restore(picture(), SHORT), expected)


def test_a_plan_with_gaps_is_the_pruned_file(files: Everything, tmp_path: Path) -> None:
    plan, names = load_plan("pgp-sdxl"), KeyMap()
    kept = {k: v for k, v in files.unet.items() if not (b := split_block(k)) or plan.keeps(*b)}
    assert len(kept) < len(files.unet)
    save_file({names.to_ldm(k): v.contiguous() for k, v in kept.items()}, tmp_path / "pruned.safetensors")
    save_file(kept, tmp_path / "diffusers.safetensors")
    rest: Any = {"guidance": files.faithdiff, "sdxl": files.sdxl, **files.saved}
    results = [
        SDXLPipeline.load(Files(model=model, plan=p, **rest), say=str)
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
        monkeypatch.setattr("pgp_core.weights_file._GROUP", total // 10)
        out = read_converted(count, names, "cpu", torch.bfloat16)
        assert abs(opened - opens) <= 1, "a file that cannot be mapped is read once"
        assert all(torch.equal(out[f"new.{k}"], v.bfloat16()) for k, v in files.unet.items())


def test_shards_are_read_together(files: Everything, tmp_path: Path, pipeline: SDXLPipeline) -> None:
    shutil.copytree(files.sdxl, tmp_path / "sdxl")
    unet = tmp_path / "sdxl/unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    keys = list(files.unet)
    for i, part in enumerate((keys[:700], keys[700:]), 1):
        save_file({k: files.unet[k] for k in part}, unet / f"diffusion_pytorch_model.fp16-0000{i}-of-00002.safetensors")
    twin = SDXLPipeline.load(Files(sdxl=tmp_path / "sdxl", guidance=files.faithdiff, prompt="a red house"), say=str)
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


# -- prompts -------------------------------------------------------------------------------------------------


def test_prompts_are_sdxls(files: Everything) -> None:
    """Last hidden states but one of both encoders side by side, the pooled vector from the second."""
    one, two = sdxl_files.text_encoders()
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789,.!"]
    ids = {c: i for i, c in enumerate([*letters, *(f"{c}</w>" for c in letters)])}
    words = [ids["a</w>"], ids["r"], ids["e"], ids["d</w>"]]
    for text, body in (("a red", words), ("", [])):
        rows = [[78, *body, 79] + [pad] * (10 - len(body)) for pad in (79, ids["!"])]
        with torch.no_grad():
            a, b = (m(torch.tensor([r]), output_hidden_states=True) for m, r in zip((one, two), rows, strict=True))
        ((context, options),) = prompts.encode(files.sdxl, [text])[0]
        assert context.shape == (1, 12, 32)
        assert torch.allclose(context, torch.cat((a.hidden_states[2], b.hidden_states[2]), -1), atol=1e-6)
        assert torch.allclose(options["pooled_output"], b.text_embeds, atol=1e-6)
        # Encoded, not zeros.
        assert float(context.abs().mean()) > 0.1


def test_a_prompt_that_is_too_long_is_cut_and_that_is_said(files: Everything) -> None:
    said: list[str] = []
    long, cut, _ = prompts.encode(files.sdxl, ["abcdefghijklm", "abcdefghij", "a"], say=said.append)
    assert said == ["the prompt has 15 tokens, the text encoders take 12: its end is left out"]
    # Ten letters, start and end; the tenth letter of the long one ends no word.
    assert torch.allclose(long[0][0][:, :10], cut[0][0][:, :10], atol=1e-6)


def test_saved_conditioning_is_the_prompt(files: Everything, pipeline: SDXLPipeline) -> None:
    saved = SDXLPipeline.load(Files(model=files.faithdiff, sdxl=files.checkpoint, **files.saved), say=str)
    expected = pipeline.restore(picture(), SHORT)
    assert torch.equal(saved.restore(picture(), SHORT), expected)
    other = SDXLPipeline.load(Files(model=files.faithdiff, sdxl=files.sdxl, prompt="a blue house"), say=str)
    assert not torch.equal(other.restore(picture(), SHORT), expected)


def test_prompts_of_other_lengths_meet(files: Everything, tmp_path: Path) -> None:
    """A prompt said twice over is the same to attention."""
    ((context, options),) = conditioning.load(files.positive).entries
    conditioning.save(tmp_path / "twice.safetensors", [[context.repeat(1, 2, 1), options]])
    rest: Any = {"model": files.faithdiff, "sdxl": files.checkpoint, "negative_conditioning": files.negative}
    one, two = (
        SDXLPipeline.load(Files(conditioning=path, **rest), say=str).restore(picture(), SHORT)
        for path in (files.positive, tmp_path / "twice.safetensors")
    )
    assert float((one - two).abs().max()) <= 1e-4


# -- sizes, batches, stopping --------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height", "scale"), [(37, 29, 2.0), (9, 21, 3.3), (1, 1, 8.0)])
def test_every_size_comes_out_exactly(width: int, height: int, scale: float, pipeline: SDXLPipeline) -> None:
    options = replace(SHORT, steps=1, cfg=1.0)
    out = upscale(pipeline, picture(1, height, width), Size(scale=scale), options, fix="none")
    assert out.shape == (1, 3, int(height * scale + 0.5), int(width * scale + 0.5))
    assert torch.isfinite(out).all()
    assert pipeline.restore(picture(1, height, width), options).shape == (1, 3, height, width)


def test_a_batch_is_its_pictures_alone(pipeline: SDXLPipeline) -> None:
    pictures = picture(2, 20, 27)
    both = upscale(pipeline, pictures, Size(scale=2.0), SHORT)
    assert not torch.equal(both[0], both[1])
    for i in range(2):
        assert torch.equal(both[i : i + 1], upscale(pipeline, pictures[i : i + 1], Size(scale=2.0), SHORT))


def test_a_run_can_be_stopped(pipeline: SDXLPipeline) -> None:
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> bool:
        seen.append((done, total))
        return done < 2

    with pytest.raises(Cancelled):
        pipeline.restore(picture(), replace(SHORT, steps=5), stop)
    assert seen == [(1, 5), (2, 5)]
    # Nothing of the stopped run stays hooked in.
    assert not pipeline.unet.get_submodule("conv_in")._forward_hooks


# -- PEAM and half precision ---------------------------------------------------------------------------------


def peam_file(path: Path, loud: bool = False, aligned: bool = False) -> Path:
    """A guidance file for the narrow UNet; a loud one holds numbers in between that float16 does not have."""
    sites = (Site(channels=64),)
    if aligned:
        sites = (Site("conv_in", 64, 0, 8, "alignment"), *sites)
    spec = GuidanceSpec(sites=sites, channels=(64,), encoder_channels=faithdiff_file.ENCODER_WIDTHS, residual=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        guidance = Guidance(spec)
    if loud:
        convolutions = [m for m in guidance.peam.modules() if isinstance(m, torch.nn.Conv2d)]
        with torch.no_grad():
            convolutions[0].weight.mul_(1e6)
            convolutions[0].bias.mul_(1e6)
            for layer in convolutions[1:-1]:
                layer.bias.mul_(1e6)
            convolutions[-1].weight.mul_(1e-6)
    weights = {KEY_PREFIX + k: v.contiguous() for k, v in guidance.state_dict().items()}
    save_file(weights, path, {METADATA_KEY: json.dumps(spec.to_json())})
    return path


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype: torch.dtype, files: Everything, tmp_path: Path) -> None:
    rest: Any = {"model": files.checkpoint, "sdxl": files.sdxl, **files.saved}
    rest["guidance"] = peam_file(tmp_path / "guidance.safetensors", loud=True, aligned=True)
    exact = SDXLPipeline.load(Files(**rest), say=str)
    half = SDXLPipeline.load(Files(**rest), dtype=dtype, say=str)
    assert {p.dtype for p in half.unet.parameters()} == {dtype}
    assert half.guidance is not None
    assert {p.dtype for p in half.guidance.peam.parameters()} == {torch.float32}
    assert {p.dtype for p in half.guidance.lq_encoder.parameters()} == {torch.float32}
    for lq in (picture(), torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)):
        a, b = exact.restore(lq, SHORT), half.restore(lq, SHORT)
        assert torch.isfinite(b).all()
        assert float((a - b).abs().max()) < 0.1


def test_numbers_that_overflow_are_an_error_not_a_black_picture(files: Everything) -> None:
    half = SDXLPipeline.load(Files(model=files.faithdiff, sdxl=files.sdxl), dtype=torch.float16, say=str)
    with torch.no_grad():
        half.unet.get_submodule("conv_out").bias.fill_(float("inf"))  # type: ignore[operator]
    with pytest.raises(PGPError, match="overflow in float32 too"):
        half.restore(picture(), SHORT)
    with torch.no_grad():
        half.unet.get_submodule("conv_out").bias.zero_()  # type: ignore[operator]
        half.vae.module.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(PGPError, match="VAE decodes"):
        half.restore(picture(), SHORT)


# -- LoRA and one step ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s1(files: Everything) -> dict[str, Path]:
    """One LoRA in three spellings: for S1 in diffusers' names, then as trainers and as PEFT write them."""
    g, names = torch.Generator().manual_seed(4), KeyMap()
    modules = ["conv_in", "mid_block.attentions.0.transformer_blocks.7.attn1.to_q", "up_blocks.1.resnets.0.conv1"]
    out: dict[str, dict[str, torch.Tensor]] = {"s1": {}, "ldm": {}, "peft": {}}
    for module in modules:
        shape = files.unet[f"{module}.weight"].shape
        down = torch.randn(4, *shape[1:], generator=g) * 0.1
        up = torch.randn(shape[0], 4, *(1 for _ in shape[2:]), generator=g) * 0.1
        for kind, stem in (("s1", module), ("ldm", names.to_ldm(module))):
            stem = "lora_unet_" + stem.replace(".", "_")
            out[kind] |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            out[kind][f"{stem}.alpha"] = torch.tensor(4.0)
        out["peft"] |= {f"unet.{module}.lora_A.weight": down, f"unet.{module}.lora_B.weight": up}
    paths = {k: files.root / f"lora-{k}.safetensors" for k in out}
    for kind, weights in out.items():
        metadata = {"pgp.s1": json.dumps({"timestep": 17})} if kind == "s1" else None
        save_file({k: v.contiguous() for k, v in weights.items()}, paths[kind], metadata)
    return paths


def test_one_step_is_the_formula(files: Everything, s1: dict[str, Path]) -> None:
    rest: Any = {"model": files.faithdiff, "sdxl": files.sdxl, "conditioning": files.positive}
    pipeline = SDXLPipeline.load(Files(loras=(s1["s1"],), **rest), one_step=True, say=str)
    assert pipeline.s1_timestep == 17
    oracle, lora = Oracle(files), load_file(s1["s1"])
    with torch.no_grad():
        for stem in sorted({k.split(".")[0] for k in lora}):
            module = next(m for n, m in oracle.unet.named_modules() if "lora_unet_" + n.replace(".", "_") == stem)
            down, up = lora[f"{stem}.lora_down.weight"].double(), lora[f"{stem}.lora_up.weight"].double()
            module.weight += torch.einsum("or,r...->o...", up.flatten(1), down)
        lq = picture()
        z = oracle.latent(lq)
        z = z - oracle.predict(z, 17, lq, None)
        expected = (oracle.vae.decode(z / 0.13025).sample / 2 + 0.5).clamp(0, 1)
    assert float((pipeline.restore(lq) - expected).abs().max()) <= 1e-4
    # One whose metadata says no timestep works at 1.
    assert SDXLPipeline.load(Files(loras=(s1["ldm"],), **rest), one_step=True, say=str).s1_timestep == 1


@pytest.fixture(scope="module")
def semantic(files: Everything) -> Path:
    """A second LoRA, on other layers and one of the first's."""
    g, out = torch.Generator().manual_seed(8), {}
    for module in ("conv_in", "up_blocks.0.attentions.0.transformer_blocks.3.ff.net.2", "conv_out"):
        shape = files.unet[f"{module}.weight"].shape
        stem = "lora_unet_" + module.replace(".", "_")
        out[f"{stem}.lora_down.weight"] = torch.randn(3, *shape[1:], generator=g) * 0.1
        out[f"{stem}.lora_up.weight"] = torch.randn(shape[0], 3, *(1 for _ in shape[2:]), generator=g) * 0.1
    path = files.root / "lora-semantic.safetensors"
    save_file(out, path, {"pgp.s1": json.dumps({"timestep": 17})})
    return path


def test_the_dial_of_two_loras(files: Everything, s1: dict[str, Path], semantic: Path) -> None:
    rest: Any = {"model": files.faithdiff, "sdxl": files.sdxl, "conditioning": files.positive}

    def load(dial: Dial | None) -> SDXLPipeline:
        chosen = Files(loras=(s1["s1"],), semantic_lora=semantic if dial else None, **rest)
        return SDXLPipeline.load(chosen, one_step=True, say=str, dial=dial)

    def latent(pipeline: SDXLPipeline, dial: Dial | None = None) -> torch.Tensor:
        pipeline.dial = dial or pipeline.dial
        found: list[torch.Tensor] = []
        pipeline.vae.decode = lambda z: found.append(z) or torch.zeros(1, 3, 64, 64)  # type: ignore
        pipeline.restore(picture())
        return found[0]

    alone, merged, beside = load(None), load(Dial()), load(Dial(1, 0.5))
    one = latent(alone)
    lora.merge(alone.unet, load_file(semantic))
    both = latent(alone)
    assert float((both - one).abs().max()) > 1e-2
    assert torch.equal(latent(merged), both), "one merged pass"
    assert torch.equal(latent(beside, Dial(1, 0)), one), "the pixel LoRA alone"
    torch.testing.assert_close(latent(beside, Dial(1, 1)), both, atol=1e-5, rtol=1e-5)
    z_l = latent(beside, Dial(0, 0))
    for pixel, strength in ((1.0, 0.5), (0.7, 1.3), (0.0, 1.0)):
        # Predictions are z_l minus the results.
        expected = z_l - pixel * (z_l - one) - strength * (one - both)
        torch.testing.assert_close(latent(beside, Dial(pixel, strength)), expected, atol=1e-5, rtol=1e-5)


def test_the_semantic_lora_is_for_one_step(files: Everything, semantic: Path) -> None:
    chosen = Files(model=files.faithdiff, sdxl=files.sdxl, semantic_lora=semantic)
    with pytest.raises(PGPError, match="--one-step"):
        SDXLPipeline.load(chosen, say=str)


def test_loras_of_every_spelling_are_the_same(files: Everything, s1: dict[str, Path]) -> None:
    rest: Any = {"model": files.faithdiff, "sdxl": files.sdxl, **files.saved}
    ldm, peft = (
        SDXLPipeline.load(Files(loras=(s1[kind],), **rest), say=str).unet.state_dict() for kind in ("ldm", "peft")
    )
    assert all(torch.equal(ldm[k], peft[k]) for k in ldm)
    assert sum(not torch.equal(ldm[k], files.unet[k]) for k in ldm) == 3
    said: list[str] = []
    both = Files(loras=(s1["ldm"], s1["peft"]), plan=load_plan("pgp-sdxl"), **rest)
    pruned = SDXLPipeline.load(both, say=said.append).unet.state_dict()
    assert sum("1 of its 3 layers" in line for line in said) == 2
    assert torch.allclose(
        pruned["conv_in.weight"] - files.unet["conv_in.weight"],
        2 * (ldm["conv_in.weight"] - files.unet["conv_in.weight"]),
        atol=1e-6,
    )


# -- what is wrong with the input ----------------------------------------------------------------------------


def _case(name: str, files: Everything, tmp: Path, s1: dict[str, Path]) -> tuple[Files, type[PGPError], str]:
    """Files that do not go together, and what is to be said of them."""
    good: Any = {"model": files.faithdiff, "sdxl": files.sdxl}
    unet = {k: v for k, v in files.unet.items() if not k.startswith("add_embedding")}
    if name == "sd15":
        save_file(unet, tmp / "sd15.safetensors")
        return Files(**{**good, "model": tmp / "sd15.safetensors"}), CheckpointError, r"1\.5"
    if name == "flux":
        save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, tmp / "flux.safetensors")
        return Files(**{**good, "model": tmp / "flux.safetensors"}), CheckpointError, "diffusion transformer"
    if name == "inpainting":
        wide = {**files.unet, "conv_in.weight": torch.zeros(64, 9, 3, 3)}
        save_file(wide, tmp / "inpainting.safetensors")
        return Files(**{**good, "model": tmp / "inpainting.safetensors"}), CheckpointError, "inpainting"
    if name == "nano":
        return Files(**{**good, "model": nano_files.FOLDER / nano_files.UNET_FILE}), CheckpointError, "leave out"
    if name == "nano's guidance":
        other = {"guidance": nano_files.FOLDER / nano_files.GUIDANCE_FILE}
        return Files(**good, **other), GuidanceError, "guides pgp-nano"
    if name == "guidance of SDXL's width":
        spec = GuidanceSpec()
        guidance = Guidance(spec)
        weights = {KEY_PREFIX + k: v for k, v in guidance.state_dict().items()}
        save_file(weights, tmp / "g.safetensors", {METADATA_KEY: json.dumps(spec.to_json())})
        return Files(**good, guidance=tmp / "g.safetensors"), GuidanceError, "320 channels .* has 64"
    if name == "guidance of another scale":
        with open_weights(peam_file(tmp / "a.safetensors")) as file:
            data = json.loads(file.metadata[METADATA_KEY])
            data["sites"][0]["scale"] = 8
            weights = {k: file.read(k) for k in file.shapes}
            save_file(weights, tmp / "g.safetensors", {METADATA_KEY: json.dumps(data)})
        return Files(**good, guidance=tmp / "g.safetensors"), GuidanceError, "another scale"
    if name == "no guidance":
        return Files(**good, guidance=files.checkpoint), GuidanceError, "checkpoint.safetensors"
    if name == "lora":
        save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 2)}, tmp / "l.safetensors")
        return Files(**good, loras=(tmp / "l.safetensors",)), CheckpointError, "changes no layer"
    if name == "dora":
        save_file({"unet.conv_in.dora_scale": torch.zeros(1, 2)}, tmp / "l.safetensors")
        return Files(**good, loras=(tmp / "l.safetensors",)), CheckpointError, "more than a LoRA"
    if name == "one-step lora in steps":
        return Files(**good, loras=(s1["s1"],)), CheckpointError, "one step"
    if name == "no conditioning":
        return Files(sdxl=files.checkpoint), ConditioningError, "--conditioning FILE and --negative-conditioning FILE"
    if name == "no negative conditioning":
        return Files(sdxl=files.checkpoint, conditioning=files.positive), ConditioningError, "--cfg 1 needs no negative"
    if name == "conditioning of another width":
        entries = [[torch.zeros(1, 5, 48), {"pooled_output": torch.zeros(1, 32)}]]
        conditioning.save(tmp / "c.safetensors", entries)
        return Files(**good, conditioning=tmp / "c.safetensors"), ConditioningError, "tokens of 48 .* takes 32 and 32"
    if name == "conditioning without pooled":
        conditioning.save(tmp / "c.safetensors", [[torch.zeros(1, 5, 32), {}]])
        return Files(**good, conditioning=tmp / "c.safetensors"), ConditioningError, "pooled"
    if name == "missing file":
        return Files(**{**good, "model": tmp / "no.safetensors"}), PGPError, "nothing is downloaded"
    if name == "folder as model":
        return Files(**{**good, "model": files.sdxl}), PGPError, "--sdxl"
    if name == "no vae":
        return Files(model=files.faithdiff, **files.saved), CheckpointError, "--vae"
    if name == "vae without vae":
        return Files(**good, vae=files.faithdiff), CheckpointError, "holds no VAE"
    if name == "flux vae":
        weights = sdxl_files.vae().state_dict()
        weights["decoder.conv_in.weight"] = torch.zeros(96, 16, 3, 3)
        save_file(weights, tmp / "vae.safetensors")
        return Files(**good, vae=tmp / "vae.safetensors"), CheckpointError, "16 latent channels"
    if name == "incomplete vae":
        weights = {k: v for k, v in sdxl_files.vae().state_dict().items() if "up_blocks.1" not in k}
        save_file(weights, tmp / "vae.safetensors")
        return Files(**good, vae=tmp / "vae.safetensors"), CheckpointError, "lacks decoder.up_blocks.1"
    if name == "incomplete text encoder":
        shutil.copytree(files.sdxl, tmp / "sdxl")
        path = tmp / "sdxl/text_encoder_2/model.safetensors"
        weights = load_file(path)
        del weights["text_projection.weight"]
        save_file(weights, path, {"format": "pt"})
        return Files(sdxl=tmp / "sdxl"), CheckpointError, "lacks text_projection"
    # What is left: folders that lack a component, or have a damaged one.
    shutil.copytree(files.sdxl, tmp / "sdxl")
    if name.startswith("damaged "):
        (tmp / "sdxl" / name.removeprefix("damaged ")).write_bytes(b"{")
        return Files(sdxl=tmp / "sdxl", guidance=files.faithdiff), CheckpointError, "cannot be read|get it again"
    shutil.rmtree(tmp / "sdxl" / name.removeprefix("without "))
    return Files(sdxl=tmp / "sdxl", guidance=files.faithdiff), CheckpointError, name.removeprefix("without ")


# fmt: off
CASES = [
    "sd15", "flux", "inpainting", "nano", "nano's guidance", "guidance of SDXL's width", "guidance of another scale",
    "no guidance", "lora", "dora", "one-step lora in steps", "no conditioning", "no negative conditioning",
    "conditioning of another width", "conditioning without pooled", "missing file", "folder as model", "no vae",
    "vae without vae", "flux vae",
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
        SDXLPipeline.load(given, say=str)
    assert "\n" not in str(error.value)


# -- the command line ----------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = (picture(1, 29, 37)[0] * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def test_the_command_line_restores(files: Everything, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = photo.parent / "out"
    arguments = ["upscale", str(photo), "-o", str(out), "--scale=2", "--model", str(files.faithdiff), "--json"]
    arguments += ["--sdxl", str(files.sdxl), "--steps=2", "--prompt=a red house", "--seed=3", "--color-fix=none"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    row = json.loads(captured.out)
    assert set(row) == {
        "input", "output", "width", "height", "seconds", "peak_memory_bytes", "seed", "steps", "model"
    }  # fmt: skip
    assert (row["width"], row["height"], row["steps"], row["seed"], row["model"]) == (74, 58, 2, 3, "FaithDiff")
    assert row["peak_memory_bytes"] > 0
    assert [line for line in captured.err.splitlines() if line.startswith("pgp-diffsr: ")] == [
        "pgp-diffsr: FaithDiff.bin holds its own guidance, which is used"
    ]
    assert "Loading" not in captured.err
    # The command line's own picture is the library's.
    pipeline = SDXLPipeline.load(Files(model=files.faithdiff, sdxl=files.sdxl, prompt="a red house"), say=str)
    rgb = torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1)[None] / 255
    expected = upscale(pipeline, rgb, Size(scale=2.0), SHORT, fix="none")
    result = torch.from_numpy(np.array(Image.open(row["output"]))).permute(2, 0, 1)[None]
    assert float((result / 255 - expected).abs().max()) <= 1.01 / 255


def test_a_checkpoint_with_conditioning_and_a_plan(
    files: Everything, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["upscale", str(photo), "-o", str(tmp_path / "out"), "--scale=1", "--sdxl", str(files.checkpoint)]
    arguments += ["--guidance", str(peam_file(tmp_path / "g.safetensors")), "--plan=pgp-sdxl", "--dtype=bf16"]
    arguments += ["--conditioning", str(files.positive), "--cfg=1", "--steps=1", "--json", "--start=noise"]
    assert main(arguments) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["model"], row["steps"]) == ("pgp-sdxl", 1)


def test_one_step_on_the_command_line(
    files: Everything, photo: Path, s1: dict[str, Path], semantic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["upscale", str(photo), "-o", str(photo.parent / "out"), "--scale=1", "--model", str(files.faithdiff)]
    arguments += ["--sdxl", str(files.checkpoint), "--conditioning", str(files.positive), "--one-step", "--json"]
    assert main([*arguments, "--lora", str(s1["s1"])]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    result = (photo.parent / "out" / "photo.png").read_bytes()
    dialled = ["--lora", str(s1["s1"]), "--semantic-lora", str(semantic), "--semantic=0.5", "--overwrite"]
    assert main([*arguments, *dialled]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    assert (photo.parent / "out" / "photo.png").read_bytes() != result


@pytest.mark.parametrize(
    "options",
    [
        ["--guidance=g.safetensors"],
        ["--plan=pgp-sdxl"],
        ["--dtype=fp16"],
        ["--prompt=a house"],
        ["--start=lr", "--steps=2"],
        ["--model=m", "--one-step"],
        ["--model=m", "--prompt=a", "--conditioning=c"],
        ["--model=m", "--negative-prompt=a", "--negative-conditioning=c"],
        ["--model=m", "--dtype=int8"],
        ["--model=m", "--one-step", "--steps=3", "--lora=x"],
        ["--semantic-lora=x"],
        ["--model=m", "--lora=x", "--semantic-lora=x"],
        ["--model=m", "--one-step", "--lora=x", "--semantic=0.5"],
    ],
)
def test_what_does_not_go_together_is_wrong_usage(
    options: list[str], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["upscale", str(photo), "-o", str(photo.parent / "out"), *options])
    assert stop.value.code == 2
    assert not (photo.parent / "out").exists()


def test_a_missing_extra_is_named(
    files: Everything, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    arguments = ["upscale", str(photo), "-o", str(photo.parent / "out"), "--model", str(files.faithdiff)]
    assert main([*arguments, "--sdxl", str(files.sdxl)]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(r'pgp-diffsr: error: transformers .* pip install "pgp-diffsr\[prompt\]"', last)


#: Ends the process where a connection is opened. Prints what each command line returns.
OFFLINE = """
import json, os, socket, sys
def refuse(*a, **k):
    sys.stderr.write("a connection was opened")
    sys.stderr.flush()
    os._exit(77)
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import torch
torch.set_num_threads(1)
from pathlib import Path
from pgp_core import prompts
from pgp_core.cli import main
folder, *commands = json.loads(sys.argv[1])
print(len(prompts.encode(Path(folder), ["a house", ""])))
for command in commands:
    print(main(command))
"""


def test_nothing_is_fetched(files: Everything, photo: Path, tmp_path: Path) -> None:
    """In a process of its own, without the tests' settings that keep the libraries offline."""
    upscale = ["upscale", str(photo), "-o", str(photo.parent / "out"), "--scale=1", "--steps=1", "--overwrite"]
    upscale += ["--model", str(files.faithdiff), "--sdxl"]
    there = [*upscale, str(files.sdxl), "--prompt=a house"]
    named = [*upscale, "stabilityai/stable-diffusion-xl-base-1.0"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    environment["HF_HOME"] = str(tmp_path / "hub")
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, json.dumps([str(files.sdxl), there, named])],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "0", "1"], done.stderr
    assert "nothing is downloaded" in done.stderr.strip().splitlines()[-1]
