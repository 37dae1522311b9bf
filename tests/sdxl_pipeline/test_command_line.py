"""`pgp-diffsr upscale` with a full-size model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sdxl_scene import SHORT, Everything, peam_file, picture

from pgp_core.cli import main
from pgp_core.images.sizes import Size
from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.restorer import SDXLRestorer
from pgp_core.restorers.upscale import upscale


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
        "input", "output", "width", "height", "seconds", "peak_memory_bytes", "seed", "steps", "model",
        "faithfulness_db", "faithfulness_delta_e",
    }  # fmt: skip
    assert (row["width"], row["height"], row["steps"], row["seed"], row["model"]) == (74, 58, 2, 3, "FaithDiff")
    assert row["peak_memory_bytes"] > 0
    assert [line for line in captured.err.splitlines() if line.startswith("pgp-diffsr: ")] == [
        "pgp-diffsr: FaithDiff.bin holds its own guidance, which is used"
    ]
    assert "Loading" not in captured.err
    # The command line's own picture is the library's.
    pipeline = SDXLRestorer.load(Given(model=files.faithdiff, base=files.sdxl, prompt="a red house"), say=str)
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
        ["--model=m", "--prompt=a", "--conditioning=c"],
        ["--model=m", "--negative-prompt=a", "--negative-conditioning=c"],
        ["--model=m", "--dtype=int8"],
        ["--model=m", "--one-step", "--steps=3", "--lora=x"],
        ["--semantic-lora=x"],
        ["--model=m", "--lora=x", "--semantic-lora=x", "--steps=2"],
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


def test_one_step_without_its_lora_is_wrong_usage(
    files: Everything, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which only the file can say: others take one step by themselves."""
    with pytest.raises(SystemExit) as stop:
        main(["upscale", str(photo), "-o", str(photo.parent / "out"), "--model", str(files.faithdiff), "--one-step"])
    assert stop.value.code == 2
    assert "--lora" in capsys.readouterr().err


@pytest.mark.parametrize(("library", "extra"), [("transformers", "prompt"), ("diffusers", "cli")])
def test_a_missing_extra_is_named(
    library: str,
    extra: str,
    files: Everything,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """diffusers is there for the VAE alone, transformers for the prompt."""
    monkeypatch.setitem(sys.modules, library, None)
    arguments = ["upscale", str(photo), "-o", str(photo.parent / "out"), "--model", str(files.faithdiff)]
    assert main([*arguments, "--sdxl", str(files.sdxl)]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(rf'pgp-diffsr: error: {library} .* pip install "pgp-diffsr\[{extra}\]"', last)


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
from pgp_core.conditioning import prompts
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
