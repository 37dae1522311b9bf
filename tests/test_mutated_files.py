"""Damaged, foreign and wrong files in the loaders that need no ComfyUI: one clear line each, or right weights."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faithdiff_file
import mutations
import pytest
import torch
import wrong_files
from safetensors.torch import load_file, save_file

from pgp_core.errors import PGPError
from pgp_core.files import weights as weights_file
from pgp_core.files.weights import open_weights
from pgp_core.guidance import faithdiff
from pgp_core.guidance.convert import convert
from pgp_core.guidance.module import METADATA_KEY, Guidance, GuidanceSpec
from pgp_core.unet import loading
from pgp_core.unet.inspect import inspect_unet
from pgp_core.unet.known import NANO_SHAPE
from pgp_core.unet.model import UNet
from pgp_core.unet.plan import PrunePlan
from pgp_core.unet.shape import UNetShape
from pgp_core.unet.topology import KeyMap

#: Seconds that no file may take; far more than any does.
SECONDS = 10


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("mutated") / "files"
    faithdiff_file.write_bases(folder)
    wrong_files.write(folder / "wrong", load_file(folder / mutations.UNET))
    return folder


@pytest.fixture
def one_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build each kind of UNet once: its weights are assigned anew for every file, all of them."""
    build, built = UNet, {}

    def cached(shape: UNetShape, plan: PrunePlan | None = None) -> torch.nn.Module:
        key = repr(shape), repr(plan and plan.stacks)
        if key not in built:
            built[key] = build(shape, plan)
        return built[key]

    monkeypatch.setattr(loading, "UNet", cached)
    monkeypatch.setattr(loading.load_unet, "__defaults__", ("this file", cached))


@pytest.fixture
def one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpickle each file once, though three loaders open it: they do it by the same function."""
    mutations.remember_readings(monkeypatch.setattr, weights_file)


def _load_unet(path: Path) -> torch.nn.Module:
    with open_weights(path) as file:
        info = inspect_unet(file)
        weights = {info.diffusers(k): file.read(k) for k in info.keys}
        return loading.load_unet(info.shape, info.plan, weights, file.name)


def _load_guidance(path: Path) -> Guidance:
    with open_weights(path) as file:
        if METADATA_KEY not in file.metadata and faithdiff.is_faithdiff(file.shapes):
            spec, weights = faithdiff.load_extras(file)
        else:
            spec = GuidanceSpec.from_metadata(file.metadata, file.name)
            weights = {k: file.read(k) for k in file.shapes}
    return Guidance(spec, device="meta").load(weights, file.name)


def _judge(action: Callable[[], Any], name: str) -> tuple[Any, str]:
    """What it gives, and what is wrong with how it fails."""
    started = time.monotonic()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            result, wrong = action(), ""
        except PGPError as e:
            result, text = None, str(e)
            wrong = "" if len(text.splitlines()) == 1 and name in text and len(text) < 800 else f"unclear: {text!r}"
        except Exception as e:
            result, wrong = None, f"{type(e).__name__}: {e}"
    if time.monotonic() - started > SECONDS:
        wrong += f" {time.monotonic() - started:.0f} s"
    return result, wrong + "".join(f" warns: {w.message}" for w in warned)


@pytest.mark.usefixtures("one_build", "one_reading")
def test_mutated_files_load_rightly_or_are_refused_in_one_line(files: Path, tmp_path: Path) -> None:
    whole = {k: tuple(v.shape) for k, v in faithdiff_file.state_dict().items()}
    nano = {k: tuple(v.shape) for k, v in UNet(NANO_SHAPE).state_dict().items()}
    extras = {k: tuple(v.shape) for k, v in load_file(files / mutations.GUIDANCE).items()}
    bad, counts = [], Counter[str]()
    for mutation in mutations.mutations(files):
        counts["files"] += 1
        path = tmp_path / f"mutated{Path(mutation.base).suffix}"
        mutation.write(path)
        if mutation.base != mutations.GUIDANCE:
            unet, wrong = _judge(lambda p=path: _load_unet(p), path.name)
            if unet is not None:
                counts["loaded"] += 1
                found = {k: tuple(v.shape) for k, v in unet.state_dict().items()}
                full = nano if mutation.base == mutations.NANO else whole
                missing = [k for k in full if k not in found and not k.startswith(faithdiff.GROUPS)]
                # A file without whole blocks is a pruned one.
                if not all(".transformer_blocks." in k for k in missing):
                    wrong += f" lacks {missing[:2]}"
                wrong += "".join(f" {k} is {v}" for k, v in found.items() if full.get(k) != v)
            bad += [f"UNet of {mutation.file!r}: {wrong}"] if wrong else []
        if mutation.base not in (mutations.UNET, mutations.NANO):
            guidance, wrong = _judge(lambda p=path: _load_guidance(p), path.name)
            if guidance is not None:
                counts["loaded"] += 1
                shapes = {"pgp." + k: tuple(v.shape) for k, v in guidance.state_dict().items()}
                wrong += "" if shapes == extras else " has other weights"
            bad += [f"guidance of {mutation.file!r}: {wrong}"] if wrong else []
        if mutation.base == mutations.BIN:
            made, wrong = _judge(lambda p=path: convert(p, tmp_path / "out"), path.name)
            left = sorted((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else []
            if left != sorted(made or ()):
                wrong += f" left {left}"
            for p in left:
                p.unlink()
            bad += [f"conversion of {mutation.file!r}: {wrong}"] if wrong else []
        path.unlink()
    assert bad == []
    assert counts["files"] >= 200
    # Most must be refused, but those whose damage does no harm are taken.
    assert 20 <= counts["loaded"] <= counts["files"] / 2


@pytest.mark.parametrize("name", wrong_files.FILES)
def test_wrong_files_are_told_what_they_are(name: str, files: Path) -> None:
    with pytest.raises(PGPError) as error:
        _load_unet(files / "wrong" / name)
    text = str(error.value)
    assert wrong_files.FILES[name].words in text and name in text and "\n" not in text


@pytest.mark.parametrize("name", ["vae.safetensors", "sd15.safetensors", "empty.safetensors", "folder.bin", "text.bin"])
def test_wrong_files_are_no_guidance(name: str, files: Path) -> None:
    with pytest.raises(PGPError) as error:
        _load_guidance(files / "wrong" / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_v_predicting_checkpoint_loads_as_such(files: Path, tmp_path: Path) -> None:
    save_file({**load_file(files / mutations.UNET), "v_pred": torch.zeros(0)}, tmp_path / "v.safetensors")
    with open_weights(tmp_path / "v.safetensors") as file:
        assert inspect_unet(file).prediction == "v_prediction"


def test_the_good_files_load(files: Path) -> None:
    names = KeyMap()
    saved = load_file(files / mutations.UNET)
    for name in (mutations.BIN, mutations.TWIN, mutations.UNET):
        weights = _load_unet(files / name).state_dict()
        assert weights.keys() == {names.to_diffusers(k) for k in saved}
        assert all(torch.equal(weights[names.to_diffusers(k)], v) for k, v in saved.items())


@pytest.mark.parametrize(
    "key", ["input_blocks.03.0.op.weight", "input_blocks.\u0663.0.op.weight", "input_blocks.3.0.op.weight\n"]
)
def test_one_tensor_under_two_spellings_is_refused(key: str, files: Path, tmp_path: Path) -> None:
    weights = load_file(files / mutations.UNET)
    save_file({**weights, key: weights["input_blocks.3.0.op.weight"].clone()}, tmp_path / "twice.safetensors")
    with pytest.raises(PGPError, match=r"twice\.safetensors"):
        _load_unet(tmp_path / "twice.safetensors")


def test_messages_are_one_line_of_sane_length() -> None:
    assert str(PGPError("a\nb\r\n\tc\x00\u2028d")) == "a b c d"
    long = str(PGPError("start " + "x" * 100_000 + " end"))
    assert long.startswith("start ") and long.endswith(" end") and len(long) < 1000
