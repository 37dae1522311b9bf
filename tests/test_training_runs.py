"""Runs from a TOML file to the files that users load: a narrow SDXL, and nano."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faithdiff_file
import numpy as np
import pytest
import sdxl_files
import torch
from PIL import Image
from safetensors.torch import save_file

from pgp_core.cli import main
from pgp_core.errors import CheckpointError, TrainingError
from pgp_core.files.checkpoints import read_safetensors
from pgp_core.guidance.module import Guidance, GuidanceSpec, Site
from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.restorer import SDXLRestorer
from pgp_core.training.building import empty, inspect, select
from pgp_core.training.config import RunConfig, read_config
from pgp_core.training.diffusion_loss import DiffusionLoss
from pgp_core.training.lora_layers import add_lora
from pgp_core.training.painting import paint_set
from pgp_core.training.sdxl_subject import SDXLSubject
from pgp_core.training.sources import Source
from pgp_core.training.subject import Batch, Sample, Subject
from pgp_core.training.training_run import train
from pgp_core.unet import lora
from pgp_core.unet.plan import load_plan

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow SDXL as a diffusers folder."""
    return sdxl_files.folder(tmp_path_factory.mktemp("sdxl") / "sdxl", sdxl_files.unet_weights())


def samples(count: int = 4, side: int = 32) -> Source:
    g = torch.Generator().manual_seed(5)
    texts = ["a cat", "", "sharp, clean", "b"]
    pairs = torch.rand(count, 2, 3, side, side, generator=g)
    return Source([Sample(*p, texts[i % 4], (640, 512), (64, 8 * i)) for i, p in enumerate(pairs)], batch=1)


def config(folder: Path, sdxl: Path, **changes: Any) -> RunConfig:
    """``model_train=...`` stands for ``model.train``."""
    tables: dict[str, dict[str, Any]] = {
        "run": {"folder": str(folder), "steps": 2, "save_every": 1, "precision": "float32", "result_dtype": "fp32"},
        "model": {"kind": "sdxl", "sdxl": str(sdxl), "plan": "pgp-sdxl"},
        "data": {"kind": "synthetic", "patch": 32},
        "loss": {"prompt_dropout": 0.2, "noise_offset": 0.02},
        "optimizer": {"lr": 1e-3},
    }
    for key, value in changes.items():
        section, _, name = key.partition("_")
        tables.setdefault(section, {})[name] = value
    return read_config(tables)


# -- what is trained, and what it leaves -----------------------------------------------------------------------


def test_fine_tuning_ends_with_files_that_the_pipeline_loads(tmp_path: Path, sdxl: Path) -> None:
    said: list[str] = []
    settings = config(tmp_path / "run", sdxl, ema_enabled=False, run_sample_every=2, run_samples=2)
    figures = train(settings, said.append, False, samples())
    assert figures["files"] == ["unet.safetensors", "guidance.safetensors"]
    unet, metadata = read_safetensors(tmp_path / "run" / "unet.safetensors")
    assert json.loads(metadata["pgp.plan"])["name"] == "pgp-sdxl"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
    assert "input_blocks.8.1.transformer_blocks.0.attn1.to_q.weight" in unet
    _, about = read_safetensors(tmp_path / "run" / "guidance.safetensors")
    spec = GuidanceSpec.from_metadata(about)
    assert spec.trained
    assert spec.plan_sha256 == json.loads(about["pgp.guidance"])["plan_sha256"] is not None
    files = Given(tmp_path / "run" / "unet.safetensors", sdxl, tmp_path / "run" / "guidance.safetensors")
    pipeline = SDXLRestorer.load(files, say=said.append)
    assert not any("not trained" in s for s in said)
    # Every part has moved, and stands in the files as it was in training.
    before = inspect(settings, str).load(torch.device("cpu"))
    assert not torch.equal(pipeline.unet.conv_in.weight, before.unet.conv_in.weight)
    assert pipeline.guidance is not None
    assert pipeline.guidance.peam["0"].convs[-1].bias.abs().max() > 0
    assert Image.open(tmp_path / "run" / "sample-000002.png").size == (3 * 32, 2 * 32)


def test_a_healing_lora_is_one_small_file(tmp_path: Path, sdxl: Path) -> None:
    settings = config(tmp_path / "run", sdxl, model_train=["lora"], model_lora_rank=2, model_guidance="none")
    figures = train(settings, str, False, samples())
    assert figures["files"] == ["lora.safetensors"]
    weights, metadata = read_safetensors(tmp_path / "run" / "lora.safetensors")
    assert json.loads(metadata["pgp.lora"])["kind"] == "healing"
    stems = {k.split(".lora")[0] for k in weights if ".lora" in k}
    assert "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q" in stems
    assert "lora_unet_up_blocks_0_attentions_0_transformer_blocks_3_ff_net_2" in stems, "original numbers"
    assert figures["trainable"] == sum(v.numel() for k, v in weights.items() if not k.endswith(".alpha"))
    unet = inspect(settings, str).load(torch.device("cpu")).unet
    assert lora.merge(unet, weights) == len(stems)


def test_a_lora_merged_is_the_model_that_was_trained(tmp_path: Path, sdxl: Path) -> None:
    settings = config(tmp_path / "run", sdxl, model_train=["lora"], model_guidance="none")
    subject = inspect(settings, str).load(torch.device("cpu"))
    plain = inspect(settings, str).load(torch.device("cpu"))
    select(subject, settings)
    for n, p in subject.unet.named_parameters():
        if "lora_B" in n:
            torch.nn.init.normal_(p.data, 0, 0.05, generator=torch.Generator().manual_seed(len(n)))
    batch = samples().first(2)
    conditioning = subject.conditioning(batch, torch.tensor([True, True]))
    x, t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 900])
    with torch.no_grad():
        wanted = subject(x, t, batch.lq, conditioning)
        before = plain(x, t, batch.lq, conditioning)
        lora.merge(plain.unet, lora.from_peft({k: v for k, v in subject.unet.state_dict().items() if ".lora_" in k}))
        merged = plain(x, t, batch.lq, conditioning)
    torch.testing.assert_close(merged, wanted, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(before, wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("parts", "beginnings"),
    [
        (["unet"], {"unet"}),
        (["peam"], {"guidance.peam"}),
        (["lq_adapter", "peam"], {"guidance.lq_adapter", "guidance.peam"}),
        (["lora", "peam"], {"unet", "guidance.peam"}),
    ],
)
def test_what_is_trained_is_what_is_asked_for(
    parts: list[str], beginnings: set[str], tmp_path: Path, sdxl: Path
) -> None:
    settings = config(tmp_path, sdxl, model_train=parts)
    subject = empty(inspect(settings, str), settings)
    for name, p in subject.named_parameters():
        asked = any(name.startswith(f"{b}.") for b in beginnings)
        lora_only = "lora" in parts and name.startswith("unet.")
        assert p.requires_grad == (".lora_" in name if lora_only else asked), name


def test_parts_that_are_not_there(tmp_path: Path, sdxl: Path) -> None:
    settings = config(tmp_path, sdxl, model_train=["alignment"])
    with pytest.raises(TrainingError, match="'alignment', which this model does not have: it has unet"):
        empty(inspect(settings, str), settings)


def test_faithdiff_s_own_parts_are_trained_too(tmp_path: Path, sdxl: Path) -> None:
    authors = faithdiff_file.Authors()
    file = tmp_path / "FaithDiff.safetensors"
    own = {k: v.contiguous() for k, v in authors.state_dict().items()}
    save_file(sdxl_files.unet_weights() | own, file)
    changes = {"model_base": str(file), "model_guidance": "faithdiff+fresh", "model_train": ["alignment", "peam"]}
    settings = config(tmp_path / "run", sdxl, ema_enabled=False, **changes)
    figures = train(settings, str, False, samples())
    assert figures["files"] == ["guidance.safetensors"]
    weights, metadata = read_safetensors(tmp_path / "run" / "guidance.safetensors")
    spec = GuidanceSpec.from_metadata(metadata)
    assert [s.fusion for s in spec.sites] == ["alignment", "peam"]
    encoder = {k: v for k, v in weights.items() if k.startswith("pgp.lq_encoder.")}
    assert encoder
    for key, value in encoder.items():
        name = key.replace("pgp.lq_encoder.", "denoise_encoder.")
        if name in own:
            assert torch.equal(value, own[name]), "what is not trained stays"


def test_the_plan_of_a_checkpoint_must_be_the_run_s(tmp_path: Path, sdxl: Path) -> None:
    train(config(tmp_path / "run", sdxl, model_train=["peam"]), str, False, samples())
    with pytest.raises(CheckpointError, match=r"state\.pt is not from this run: there model\.plan is") as error:
        train(config(tmp_path / "run", sdxl, model_train=["peam"], model_plan="pgp-sdxl-coarse"), str, False, samples())
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match=r"there optimizer\.lr is 0\.001, now 0\.01"):
        train(config(tmp_path / "run", sdxl, model_train=["peam"], optimizer_lr=0.01), str, False, samples())


def test_there_must_be_something_to_make_prompts_with(tmp_path: Path) -> None:
    checkpoint = sdxl_files.checkpoint(tmp_path / "sdxl.safetensors", sdxl_files.unet_weights())
    with pytest.raises(TrainingError, match="no text encoders"):
        train(config(tmp_path / "run", checkpoint), str, False, samples())


# -- the subject -----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_full_size_subject_calls_the_unet_as_diffusers_has_it(tmp_path: Path, sdxl: Path) -> None:
    """Captions by the encoders, sizes in pixels, latents by the VAE: each against the library's own."""
    from transformers import CLIPTokenizer

    subject = inspect(config(tmp_path, sdxl, model_guidance="none"), str).load(torch.device("cpu"))
    assert isinstance(subject, SDXLSubject)
    batch = samples().first(2)
    conditioning = subject.conditioning(batch, torch.tensor([True, False]))
    one, two = sdxl_files.text_encoders()
    for i, text in enumerate(("a cat", "")):
        tokens = [
            CLIPTokenizer.from_pretrained(sdxl / n)(text, padding="max_length", max_length=12, return_tensors="pt")
            for n in ("tokenizer", "tokenizer_2")
        ]
        first = one(tokens[0].input_ids, output_hidden_states=True)
        second = two(tokens[1].input_ids, output_hidden_states=True)
        expected = torch.cat((first.hidden_states[-2], second.hidden_states[-2]), -1)[0]
        torch.testing.assert_close(conditioning.context[i], expected)
        torch.testing.assert_close(conditioning.pooled[i], second.text_embeds[0])
    assert conditioning.time_ids.tolist() == [[640, 512, 64, 0, 32, 32], [640, 512, 64, 8, 32, 32]]
    vae = sdxl_files.vae()
    z = vae.encode(batch.hq * 2 - 1).latent_dist.mode() * sdxl_files.SCALING
    torch.testing.assert_close(subject.encode(batch.hq), z)
    torch.testing.assert_close(subject.decode(z), vae.decode(z / sdxl_files.SCALING).sample / 2 + 0.5)
    assert torch.equal(subject.denoised(z, z + 1), z + 1)
    x, t = torch.randn(2, 4, 4, 4), torch.tensor([3, 900])
    added = {"text_embeds": conditioning.pooled, "time_ids": conditioning.time_ids}
    expected = subject.unet(x, t, conditioning.context, added_cond_kwargs=added).sample
    torch.testing.assert_close(subject(x, t, batch.lq, conditioning), expected)


def test_gradients_pass_the_decoder_and_not_the_encoder(tmp_path: Path, sdxl: Path) -> None:
    subject = inspect(config(tmp_path, sdxl, model_guidance="none"), str).load(torch.device("cpu"))
    z = torch.zeros(1, 4, 4, 4, requires_grad=True)
    subject.decode(z).sum().backward()
    assert z.grad is not None
    assert z.grad.abs().max() > 0
    assert not subject.encode(torch.rand(1, 3, 32, 32, requires_grad=True)).requires_grad


@pytest.mark.parametrize("kind", ["unet", "lora"])
def test_gradients_with_and_without_checkpointing_agree(kind: str, make_unet: Callable[..., Any], shape: Any) -> None:
    """Guidance works through hooks that are gone when a checkpointed layer is computed again."""
    fusions = ("conv_in", "add"), ("down_blocks.0.downsamplers.0", "peam"), ("down_blocks.1.downsamplers.0", "peam")
    sites = (*(Site(m, 32, 0, 8, f) for m, f in fusions), Site("mid_block", 32, 0, 16, "peam"))
    spec = GuidanceSpec(base="pgp-nano", sites=sites, channels=(32,), unshuffle=4)

    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            guidance = Guidance(spec)
            unet = make_unet()
            if kind == "lora":
                unet.requires_grad_(False)
                add_lora(unet, 2)
                for n, p in unet.named_parameters():
                    if "lora_B" in n:
                        p.data.normal_()
        subject = Known(unet, guidance, shape)
        subject.train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        DiffusionLoss()(subject, samples(2, 64).first(2), torch.Generator().manual_seed(2)).backward()
        return {n: p.grad for n, p in subject.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    assert any(".peam.1" in k for k in plain)
    assert all(v.abs().max() > 0 for k, v in plain.items() if ".peam." in k)
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value, atol=1e-6, rtol=1e-4)


class Known(Subject):
    """A UNet between pictures at an eighth and back, with constant conditioning."""

    prediction, negatives, s1_timestep = "epsilon", False, 1

    def __init__(self, unet: Any, guidance: Any, shape: Any):
        super().__init__()
        self.unet, self.guidance, self.shape = unet, guidance, shape

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(pictures, 4).repeat(1, 2, 1, 1)[:, :4]

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def denoised(self, z_lq: torch.Tensor, z_hq: torch.Tensor) -> torch.Tensor:
        return z_hq

    def conditioning(self, batch: Batch, positive: torch.Tensor) -> Any:
        from pgp_core.conditioning.conditioning import Conditioning

        n = len(batch)
        return Conditioning(
            torch.ones(n, 5, self.shape.context_dim), torch.ones(n, self.shape.pooled_dim), torch.ones(n, 6)
        )


def test_a_site_within_a_checkpointed_layer_is_refused(tmp_path: Path, sdxl: Path) -> None:
    settings = config(tmp_path, sdxl, run_checkpointing=True)
    subject = empty(inspect(settings, str), settings)
    assert subject.guidance is not None
    object.__setattr__(subject.guidance, "spec", GuidanceSpec(sites=(Site("down_blocks.0.resnets.0", 64),)))
    with pytest.raises(TrainingError, match=r"down_blocks\.0\.resnets\.0 again without the guidance"):
        select(subject, settings)


# -- the command line ------------------------------------------------------------------------------------------


@pytest.fixture
def nano_run(tmp_path: Path) -> list[str]:
    """Arguments of a very short run of nano's first stage."""
    paint_set(str(tmp_path / "pictures.npy"), 2, seed=0, size=128)
    pairs = {
        "run.folder": tmp_path / "regress", "run.steps": 2, "data.pictures": 2, "data.size": 128, "data.batch": 1,
        "data.patch": 32, "data.workers": 0, "optimizer.warmup": 0, "run.sample_every": 2, "run.device": "cpu",
    }  # fmt: skip
    return ["train", "finetune", "nano-regress", *(a for k, v in pairs.items() for a in ("--set", f"{k}={v}"))]


def test_a_run_from_the_command_line(nano_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*nano_run, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    figures = json.loads(line)
    assert figures["steps"] == 2
    assert figures["files"] == ["model.safetensors"]
    strip = np.asarray(Image.open(tmp_path / "regress" / "sample-000002.png"))
    assert strip.shape == (4 * 32, 3 * 32, 3)
    assert main([*nano_run, "--set", "data.workers=1"]) == 0, "it is done already"
    told = capsys.readouterr()
    assert "goes on from step 2 of 2" in told.err
    assert told.out == ""


def test_the_wrong_command_names_the_right_one(nano_run: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    nano_run[1] = "distill"
    assert main(nano_run) == 1
    assert "use `pgp-diffsr train finetune`" in capsys.readouterr().err
    assert main(["train", "finetune", "nano-s1"]) == 1
    assert "use `pgp-diffsr train distill`" in capsys.readouterr().err


def test_ctrl_c_is_exit_130(
    nano_run: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import os
    import signal

    call = DiffusionLoss.__call__

    def pressed(self: Any, *args: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return call(self, *args)

    monkeypatch.setattr(DiffusionLoss, "__call__", pressed)
    assert main(nano_run) == 130
    assert "interrupted" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(nano_run) == 0
    assert "goes on from step 1 of 2" in capsys.readouterr().err


def test_plans_are_checked_before_weights_are_read(nano_run: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*nano_run, "--set", "model.plan=none-such"]) == 1
    assert "model.plan: " in capsys.readouterr().err
    assert load_plan("pgp-nano").topology == "pgp-nano"
