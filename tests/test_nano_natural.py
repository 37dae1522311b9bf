"""Nano's dial from a faithful LoRA to a natural one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import natural_lora
import pytest
import torch
from rounding import LAYER, assert_same

from pgp_core.cli import main
from pgp_core.errors import CheckpointError, PGPError, WrongUsage
from pgp_core.files.checkpoints import read_safetensors, write_safetensors
from pgp_core.restorers.finding import find
from pgp_core.restorers.given import Given
from pgp_core.restorers.nano import model as nano
from pgp_core.restorers.nano.natural import DEFAULT_KEY, mixed
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.unet.topology import KeyMap

pytestmark = pytest.mark.skipif(
    not (nano.FOLDER / nano.UNET_FILE).exists(), reason="the nano weights are not in this checkout"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return natural_lora.folder(tmp_path_factory.mktemp("two"))


def weights(restorer: NanoRestorer) -> dict[str, torch.Tensor]:
    return dict(restorer.unet.state_dict())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def by_hand(folder: Path, share: float, s1: float = 1) -> dict[str, torch.Tensor]:
    """``W + (1 - share) * faithful + share * natural`` in float64, from the files alone.

    Args:
        s1: 0 leaves the faithful LoRA out.
    """
    ldm, _ = read_safetensors(folder / nano.UNET_FILE)
    names = KeyMap.of(ldm)
    found = {names.to_diffusers(k): v.double() for k, v in ldm.items()}
    for file, strength in ((nano.S1_FILE, s1 * (1 - share)), (nano.NATURAL_FILE, share)):
        lora, _ = read_safetensors(folder / file)
        for name in [k for k in found if k.endswith(".weight")]:
            stem = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            if f"{stem}.alpha" not in lora:
                continue
            down, up = (lora[f"{stem}.lora_{part}.weight"].double() for part in ("down", "up"))
            change = up.flatten(1) @ down.flatten(1) * (float(lora[f"{stem}.alpha"]) / len(down))
            found[name] = found[name] + strength * change.view(found[name].shape)
    return found


@pytest.mark.parametrize("share", [0.25, 0.7])
def test_between_the_ends_weights_are_interpolated(folder: Path, share: float) -> None:
    wanted, largest = by_hand(folder, share), 0.0
    for name, value in weights(NanoRestorer.load(folder=folder, natural=share)).items():
        # Either end may be larger than what lies between them.
        ends = (by_hand_ends(folder)[0][name], by_hand_ends(folder)[1][name])
        assert_same(value, wanted[name], LAYER, *ends)
        largest = max(largest, float((wanted[name] - ends[0]).abs().max()))
    assert largest > 1e-3, "the two are not the same"


_ENDS: dict[Path, tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = {}


def by_hand_ends(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    if folder not in _ENDS:
        _ENDS[folder] = by_hand(folder, 0), by_hand(folder, 1)
    return _ENDS[folder]


def test_at_its_ends_it_is_either_lora_alone(folder: Path, tmp_path: Path) -> None:
    shipped = weights(NanoRestorer.load())
    assert same(weights(NanoRestorer.load(folder=folder)), shipped), "a file that says nothing changes nothing"
    assert same(weights(NanoRestorer.load(folder=folder, natural=0.0)), shipped)
    # The natural LoRA in the faithful one's place.
    alone = natural_lora.folder(tmp_path)
    natural_lora.write(alone / nano.S1_FILE)
    (alone / nano.NATURAL_FILE).unlink()
    only = NanoRestorer.load(folder=alone)
    restorer = NanoRestorer.load(folder=folder, natural=1.0)
    assert same(weights(restorer), weights(only))
    assert not same(weights(restorer), shipped)
    assert restorer.recipe.natural == 1
    canvas = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(restorer.restore(canvas), only.restore(canvas))


def test_half_precision_is_rounded_twice_at_most(folder: Path) -> None:
    half = weights(NanoRestorer.load(folder=folder, natural=0.4, dtype=torch.bfloat16))
    wanted, base = by_hand(folder, 0.4), by_hand(folder, 0, 0)
    for name, value in half.items():
        assert value.dtype == torch.bfloat16
        # The base is rounded, both merged weights are, then what lies between them. S1 takes most of conv_in away.
        assert_same(value, wanted[name], 2, base[name], *(ends[name] for ends in by_hand_ends(folder)))


def test_twenty_steps_know_no_dial(folder: Path) -> None:
    restorer = NanoRestorer.load(one_step=False, folder=folder)
    assert restorer.recipe.natural == 0
    assert same(weights(restorer), weights(NanoRestorer.load(one_step=False)))


def test_the_file_s_own_default_holds_where_nobody_says(tmp_path: Path) -> None:
    own = natural_lora.folder(tmp_path, "0.4")
    model = own / nano.UNET_FILE
    assert NanoRestorer.of(Given(model=model)).recipe.natural == 0.4
    asked = NanoRestorer.of(Given(model=model, natural=0.4))
    assert same(weights(asked), weights(NanoRestorer.load(folder=own)))
    # 0 is an answer too.
    assert same(weights(NanoRestorer.of(Given(model=model, natural=0.0))), weights(NanoRestorer.load()))


@pytest.mark.parametrize("default", ["much", "nan", "1.5", "-0.1", ""])
def test_a_wrong_default_is_one_line(tmp_path: Path, default: str) -> None:
    with pytest.raises(CheckpointError, match=DEFAULT_KEY) as error:
        NanoRestorer.load(folder=natural_lora.folder(tmp_path, default))
    assert "\n" not in str(error.value)


def test_without_a_second_lora_asking_for_it_is_one_line(tmp_path: Path) -> None:
    single = natural_lora.folder(tmp_path)
    (single / nano.NATURAL_FILE).unlink()
    given = Given(model=single / nano.UNET_FILE, natural=0.5)
    with pytest.raises(WrongUsage, match="second S1 LoRA"):
        find(given).load()
    # As faithful as it is anyway.
    assert find(Given(model=single / nano.UNET_FILE, natural=0.0)).family.wrong(given) is not None
    with pytest.raises(CheckpointError, match="there is no file"):
        NanoRestorer.load(folder=single, natural=0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--natural=0.5", "--steps=20"], "--natural is for one step"),
        (["--natural=1.5"], "0 (faithful) to 1 (natural)"),
        (["--natural=nan"], "--natural"),
        (["--natural=0.5", "--model=unet.safetensors", "--base=folder"], "there is no"),
    ],
)
def test_wrong_usage_is_one_line(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: Any = main(["upscale", "picture.png", "-o", "out", *options])
    except SystemExit as e:
        code = e.code
    assert code not in (0, None)
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_the_command_line_turns_it(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (9, 11, 3), generator=generator, dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "lq.png")
    made = []
    for share in ("0", "0.5", "1"):
        out = tmp_path / f"{share}.png"
        model = str(folder / nano.UNET_FILE)
        assert main(["upscale", str(tmp_path / "lq.png"), "-o", str(out), "--model", model, "--natural", share]) == 0
        with Image.open(out) as image:
            assert image.size == (44, 36)
            made.append(image.tobytes())
    assert len(set(made)) == 3


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_two_versions_of_a_module_mix(share: float) -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = ({"w": torch.randn(4, 3, generator=generator)} for _ in range(2))
    found = mixed(a, b, share)["w"]
    assert_same(found, (1 - share) * a["w"].double() + share * b["w"].double(), 4, a["w"], b["w"])
    if share in (0, 1):
        assert torch.equal(found, (b if share else a)["w"])


def test_versions_of_other_modules_do_not_mix() -> None:
    with pytest.raises(PGPError, match="does not fit"):
        mixed({"w": torch.zeros(2)}, {"w": torch.zeros(3)}, 0.5)
    with pytest.raises(PGPError, match="lacks v"):
        mixed({"w": torch.zeros(2), "v": torch.zeros(1)}, {"w": torch.zeros(2)}, 0.5)


def test_a_damaged_second_lora_is_one_line(folder: Path, tmp_path: Path) -> None:
    own = natural_lora.folder(tmp_path)
    broken = natural_lora.drawn()
    broken["lora_unet_conv_in.lora_up.weight"][0] = float("nan")
    write_safetensors(own / nano.NATURAL_FILE, broken)
    with pytest.raises(CheckpointError, match="not finite"):
        NanoRestorer.load(folder=own, natural=0.5)
