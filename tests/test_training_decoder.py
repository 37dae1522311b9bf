"""Nano's learned decoder in training: taught by a loss on pictures, resumed, carried on, and made a file that ships."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from pgp_core.cli import main
from pgp_core.codecs.decoder import DecoderShape, PixelDecoder
from pgp_core.codecs.decoder_file import read_decoder, write_decoder
from pgp_core.errors import CheckpointError, ConfigError, TrainingError
from pgp_core.files.checkpoints import read_safetensors
from pgp_core.restorers.nano import model as nano
from pgp_core.training import export
from pgp_core.training.building import empty, inspect, select
from pgp_core.training.config import RunConfig, load_config
from pgp_core.training.distillation import make_loss
from pgp_core.training.export import import_nano
from pgp_core.training.memory import activations
from pgp_core.training.nano import run_stage
from pgp_core.training.nano_subject import NanoSubject
from pgp_core.training.one_step_loss import S1Loss
from pgp_core.training.painting import paint_set
from pgp_core.training.sources import make_source

pytest.importorskip("peft")

SMALL = [
    *("run.steps=3", "run.device=cpu", "run.precision=float32", "data.pictures=2", "data.size=128", "data.batch=1"),
    *("data.patch=32", "data.workers=0", "optimizer.warmup=0", "model.plan=", "model.guidance=base"),
]
DECODER = ["model.train=['lora', 'decoder']", "model.decoder_width=8", "model.decoder_depth=3"]
S1 = [*SMALL, *DECODER, "model.base=regress", "model.lora_rank=2"]
#: 3 to 8, 8 to 8 and 8 to 3 channels, and biases.
PARAMETERS = 9 * (24 + 64 + 24) + 8 + 8 + 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and a LoRA with a decoder."""
    folder = tmp_path_factory.mktemp("runs")
    paint_set(str(folder / "pictures.npy"), 2, seed=0, size=128)
    run_stage("regress", folder, [*SMALL, "run.steps=1"], progress=False)
    run_stage("s1", folder, S1, progress=False)
    return folder


def config(runs: Path, name: str, *changes: str) -> RunConfig:
    return load_config(Path("nano-s1"), [f"run.folder={runs / name}", *S1, *changes])


def loaded(settings: RunConfig) -> NanoSubject:
    subject = inspect(settings, str).load(torch.device("cpu"))
    select(subject, settings)
    assert isinstance(subject, NanoSubject)
    return subject


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in a.state_dict().items())


def test_a_run_ends_with_a_lora_and_a_decoder(runs: Path) -> None:
    assert not (runs / "regress" / "decoder.safetensors").exists()
    figures = json.loads((runs / "s1" / "figures.json").read_text())
    assert figures["files"] == ["model.safetensors", "decoder.safetensors"]
    weights, _ = read_safetensors(runs / "s1" / "model.safetensors")
    assert all(".lora_" in k for k in weights)
    assert figures["trainable"] == sum(v.numel() for v in weights.values()) + PARAMETERS
    decoder = read_decoder(runs / "s1" / "decoder.safetensors")
    assert decoder.shape == DecoderShape(8, 3)
    assert float(decoder.convs[-1].weight.abs().max()) > 0, "its last convolution was zero"


def test_a_fresh_one_changes_neither_the_start_nor_the_first_loss(runs: Path) -> None:
    settings, without = config(runs, "x"), config(runs, "x", "model.train=['lora']")
    batch = make_source(settings).first(1)
    subjects = [loaded(c) for c in (settings, without)]
    losses = [make_loss(c, s, str) for c, s in zip((settings, without), subjects, strict=True)]
    values = [loss(s, batch, torch.Generator()) for loss, s in zip(losses, subjects, strict=True)]
    assert subjects[0].decoder is not None
    assert subjects[1].decoder is None
    assert torch.equal(*values)
    values[0].backward()
    assert float(subjects[0].decoder.convs[-1].weight.grad.abs().sum()) > 0


def test_what_it_learns_from_is_the_decoded_picture(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a UNet that does nothing, what is compared with HQ is what the decoder makes of the LQ canvas."""
    settings = config(runs, "x", "model.decoder=s1", "s1.l1=1", "s1.edges=0")
    subject = loaded(settings)
    assert subject.decoder is not None
    monkeypatch.setattr(NanoSubject, "forward", lambda self, x, *_: torch.zeros_like(x))
    batch = make_source(settings).first(1)
    loss = make_loss(settings, subject, str)(subject, batch, torch.Generator())
    (slope,) = torch.autograd.grad(loss, subject.decoder.convs[0].weight, retain_graph=True)
    decoder = read_decoder(runs / "s1" / "decoder.safetensors").double().requires_grad_(True)
    expected = (decoder(2 * batch.lq.double() - 1) - (2 * batch.hq.double() - 1)).abs().mean()
    (exact,) = torch.autograd.grad(expected, decoder.convs[0].weight)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    # A difference of almost nothing may have another sign in float32, and is one of 3,072.
    assert float((slope - exact).abs().max()) <= 0.02 * float(exact.abs().max())
    assert float(exact.abs().max()) > 0


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls = S1Loss.forward, []

    def pressed(self: Any, *args: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, *args)

    over = [a for o in (*S1, f"run.folder={runs / 'parts'}") for a in ("--set", o)]
    monkeypatch.setattr(S1Loss, "forward", pressed)
    assert main(["train", "distill", "nano-s1", *over]) == 130
    monkeypatch.undo()
    state = torch.load(runs / "parts" / "state.pt", weights_only=True)
    assert state["step"] == 2
    assert [k for k in state["weights"] if k.startswith("decoder.")]
    assert [k for k in state["ema"] if k.startswith("decoder.")]
    assert main(["train", "distill", "nano-s1", *over]) == 0
    for name in ("model.safetensors", "decoder.safetensors"):
        whole, parts = (read_safetensors(runs / folder / name)[0] for folder in ("s1", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(v, parts[k]) for k, v in whole.items()), name


def test_the_state_of_a_run_without_one_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    over = [a for o in (*S1, f"run.folder={runs / 's1'}", "model.decoder_width=9") for a in ("--set", o)]
    assert main(["train", "distill", "nano-s1", *over]) == 1
    assert "model.decoder is [null, 8, 3], now [null, 9, 3]" in capsys.readouterr().err


def test_it_goes_on_from_the_stage_before(runs: Path, tmp_path: Path) -> None:
    before = read_decoder(runs / "s1" / "decoder.safetensors")
    for changes, train in (
        ("s1.first_lora=s1", "['lora', 'decoder']"),
        ("model.decoder=s1", "['lora']"),
        (f"model.decoder={runs}/s1/decoder.safetensors", "['lora', 'decoder']"),
    ):
        subject = loaded(config(runs, "x", changes, f"model.train={train}"))
        assert subject.decoder is not None
        assert same(subject.decoder, before)
        assert all(p.requires_grad == ("decoder" in train) for p in subject.decoder.parameters())
    # Not trained, it is carried on all the same.
    carried = [*S1, "model.train=['lora']", "s1.first_lora=s1", f"run.folder={runs / 'carried'}"]
    over = [a for o in carried for a in ("--set", o)]
    assert main(["train", "distill", "nano-s1", *over]) == 0
    assert same(read_decoder(runs / "carried" / "decoder.safetensors"), before)
    other = tmp_path / "other.safetensors"
    write_decoder(other, PixelDecoder.fresh(DecoderShape(5, 2)))
    assert inspect(config(runs, "x", "s1.first_lora=s1", f"model.decoder={other}"), str).decoder == DecoderShape(5, 2)


def test_it_is_counted_before_the_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    over = [a for o in (*S1, f"run.folder={runs / 'x'}") for a in ("--set", o)]
    assert main(["train", "distill", "nano-s1", "--dry-run", "--json", *over]) == 0
    assert json.loads(capsys.readouterr().out)["trained_parts"]["decoder"] == PARAMETERS
    kept = []
    for train in ("['lora']", "['lora', 'decoder']"):
        settings = config(runs, "x", f"model.train={train}", "model.decoder_width=64")
        parts = inspect(settings, str)
        kept.append(activations(settings, parts, empty(parts, settings), "float32"))
    # Two layers at full resolution, in float32, are kept at the least.
    assert kept[1] - kept[0] >= 4 * 2 * 64 * 32**2


@pytest.mark.parametrize(
    ("stage", "changes", "error", "message"),
    [
        ("nano-full", ["model.train=['unet', 'decoder']"], ConfigError, r"\[loss\] does not teach"),
        ("nano-s1", ["s1.space=latent", "s1.edges=0"], ConfigError, r"no term of \[s1\] teaches"),
        ("nano-s1", ["model.decoder=none-such"], TrainingError, "decoder.safetensors is not there"),
        ("nano-s1", ["model.decoder=RUNS/s1/model.safetensors"], CheckpointError, "holds no decoder"),
        ("nano-s1", ["model.decoder_depth=1"], ConfigError, "decoder_depth"),
    ],
)
def test_what_cannot_be_is_one_line(
    runs: Path, stage: str, changes: list[str], error: type[Exception], message: str
) -> None:
    changes = [c.replace("RUNS", str(runs)) for c in changes]
    own = S1 if stage == "nano-s1" else [*SMALL, "model.base=regress"]
    with pytest.raises(error, match=message) as raised:
        inspect(load_config(Path(stage), [f"run.folder={runs / 'x'}", *own, *changes]), str)
    assert "\n" not in str(raised.value)


def test_sdxl_has_none() -> None:
    with pytest.raises(ConfigError, match='has "decoder", which only nano has'):
        load_config(Path("finetune-24gb"), ["model.train=['decoder']", "data.folder=x", "model.base=x"])
    with pytest.raises(ConfigError, match=r"model\.decoder is for nano"):
        load_config(Path("finetune-24gb"), ["model.decoder=x", "data.folder=x", "model.base=x"])


def test_export_takes_it_along_and_leaves_none_of_another_run(runs: Path, tmp_path: Path) -> None:
    target = tmp_path / nano.DECODER_FILE
    export._export_decoder(runs, ("s1", "finish"), tmp_path)
    before = read_decoder(runs / "s1" / "decoder.safetensors")
    tensors, metadata = read_safetensors(target)
    assert {v.dtype for v in tensors.values()} == {torch.float16}
    assert metadata["modelspec.license"] == "Apache-2.0"
    assert all(
        torch.equal(v, before.state_dict()[k].half().float()) for k, v in read_decoder(target).state_dict().items()
    )
    export._export_decoder(runs, ("regress",), tmp_path)
    assert not target.exists()


def test_what_ships_can_be_trained_on(runs: Path, tmp_path: Path) -> None:
    if not (nano.FOLDER / nano.UNET_FILE).exists():
        pytest.skip("the nano weights are not in this checkout")
    source = tmp_path / "shipped"
    source.mkdir()
    for name in (nano.UNET_FILE, nano.GUIDANCE_FILE, nano.CONTEXTS_FILE):
        (source / name).symlink_to(nano.FOLDER / name)
    write_decoder(source / nano.DECODER_FILE, read_decoder(runs / "s1" / "decoder.safetensors"))
    import_nano(tmp_path / "runs", source)
    assert same(
        read_decoder(tmp_path / "runs" / "fine" / "decoder.safetensors"), read_decoder(source / nano.DECODER_FILE)
    )
