"""What the program imports: no PyTorch where nothing is computed, nothing that the job does not need where it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from pgp_core.cli import build_parser

#: Runs the program in a fresh Python, once for each list of arguments; says last how each ended, and what is loaded.
PROGRAM = """
import json, sys
from pgp_core.cli import main
ends = []
for arguments in json.loads(sys.argv[1]):
    try:
        ends.append(main(arguments))
    except SystemExit as e:
        ends.append(e.code)
print("\\n" + json.dumps([ends, sorted({name.partition('.')[0] for name in sys.modules} | set(sys.modules))]))
"""
#: What takes longest to import, of PyTorch and of what stands around it.
HEAVY = {"torch", "numpy", "PIL", "diffusers", "safetensors", "tqdm", "pyvips", "matplotlib", "scipy"}


def loaded(*runs: list[str]) -> tuple[list[int], set[str]]:
    """Exit status of each run, and the modules that are loaded in the end."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ends, modules = json.loads(done.stdout.splitlines()[-1])
    return ends, set(modules)


def commands() -> list[list[str]]:
    """Every command, and every action of one that has some."""
    found = []
    for name, command in build_parser()._subparsers._group_actions[0].choices.items():  # type: ignore[union-attr]
        found.append([name])
        if command._subparsers is not None:
            found += [[name, action] for action in command._subparsers._group_actions[0].choices]
    return found


def test_help_waits_for_no_pytorch() -> None:
    runs = [[*command, "--help"] for command in ([], *commands())]
    assert ["plan", "show", "--help"] in runs
    ends, modules = loaded(*runs)
    assert ends == [0] * len(runs)
    assert not HEAVY & modules


def test_what_computes_nothing_waits_for_no_pytorch() -> None:
    runs = [
        ["--version"],
        ["plan", "list"],
        ["plan", "list", "--json"],
        ["models"],
        ["models", "--json"],
        ["plan", "show", "pgp-sdxl"],
        ["plan", "show", "pgp-nano", "--json", "--latent", "33"],
    ]
    ends, modules = loaded(*runs)
    assert ends == [0] * len(runs)
    assert not HEAVY & modules


def test_wrong_usage_waits_for_no_pytorch() -> None:
    upscale = ["upscale", "a.png", "-o", "b.png"]
    runs = [
        [],
        ["enlarge"],
        ["upscale"],
        ["upscale", "a.png"],
        [*upscale, "--steps", "many"],
        [*upscale, "--scale", "9"],
        [*upscale, "--width", "0"],
        [*upscale, "--color-fix", "magic"],
        [*upscale, "--prompt", "a cat"],
        [*upscale, "--wrap", "z"],
        ["models", "--base", "sdxl"],
        ["plan", "show"],
        ["plan", "build", "-o", "plan.json"],
        ["bench", "unet", "--latent", "0"],
        ["train", "--stage", "x"],
    ]
    ends, modules = loaded(*runs)
    assert ends == [2] * len(runs)
    assert not {"torch", "diffusers"} & modules


def test_a_picture_with_nano_takes_only_what_it_needs(tmp_path: Path) -> None:
    """Training's packages are there: nothing of them is imported on the way, nor what compiles, draws or downloads."""
    Image.new("RGB", (9, 7), "teal").save(tmp_path / "a.png")
    pictures = ["upscale", str(tmp_path / "a.png"), "--scale", "2", "-o"]
    ends, modules = loaded(
        [*pictures, str(tmp_path / "one.png")], [*pictures, str(tmp_path / "steps.png"), "--steps", "2"]
    )
    assert ends == [0, 0]
    assert {p.name for p in tmp_path.glob("*.png")} == {"a.png", "one.png", "steps.png"}
    others = {"diffusers", "transformers", "peft", "accelerate", "torchvision", "scipy", "skimage", "matplotlib"}
    others |= {"huggingface_hub", "pyvips", "cv2", "lpips", "pandas", "torch._dynamo", "torch._inductor"}
    assert not others & modules
