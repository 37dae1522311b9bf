"""``pgp-diffsr models``: the families, and what files are, as a user and as a script reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faithdiff_file
import foreign_files
import found_files
import pytest
import sdxl_files
import torch
from safetensors.torch import save_file

from pgp_core.cli import main
from pgp_core.conditioning import entries
from pgp_core.guidance.convert import convert
from pgp_core.guidance.fresh import write_fresh_guidance
from pgp_core.restorers.finding import FAMILIES, find
from pgp_core.restorers.given import Given
from pgp_core.restorers.nano import model as nano
from pgp_core.unet.plan import load_plan
from pgp_core.unet.prune_file import prune_file

needs_weights = pytest.mark.skipif(
    not (nano.FOLDER / nano.UNET_FILE).exists(), reason="the nano weights are not in this checkout"
)
Run = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit status, JSON lines, and what people read."""

    def go(*arguments: object) -> tuple[int, list[dict[str, Any]], str]:
        status = main(["models", *map(str, arguments)])
        out = capsys.readouterr()
        return status, [json.loads(line) for line in out.out.splitlines()], out.err

    return go


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Narrow files of everything that belongs together."""
    root: Path = tmp_path_factory.mktemp("models")
    weights = faithdiff_file.state_dict()
    torch.save(weights, root / "FaithDiff.bin")
    unet = found_files.unet()
    sdxl_files.folder(root / "sdxl", unet)
    sdxl_files.checkpoint(root / "checkpoint.safetensors", unet)
    save_file(found_files.ldm(), root / "unet.safetensors")
    convert(root / "FaithDiff.bin", root / "converted")
    prune_file(root / "unet.safetensors", load_plan("pgp-sdxl"), root / "pruned.safetensors")
    write_fresh_guidance(root / "guidance.safetensors")
    entries.save(root / "positive.safetensors", [[torch.zeros(1, 77, 32), {"pooled_output": torch.zeros(1, 32)}]])
    return root


# -- families ------------------------------------------------------------------------------------------------


def test_families_as_data(run: Run) -> None:
    status, rows, _ = run("--json")
    assert status == 0 and [r["name"] for r in rows] == [f.name for f in FAMILIES]
    by = {r["name"]: r for r in rows}
    for row in rows:
        assert isinstance(row["files"], str) and isinstance(row["needs"], list) and row["licence"] and row["published"]
        assert isinstance(row["recipe"]["steps"], int)
    assert by["pgp-nano"]["needs"] == [] and by["pgp-nano"]["recipe"]["steps"] == 1
    assert by["faithdiff"]["recipe"]["cfg"] == 5 and by["faithdiff"]["recipe"]["start"] == "lr"
    assert by["pgp-diffsr"]["recipe_once"]["timestep"] == 1
    assert any("--guidance" in need for need in by["pgp-diffsr"]["needs"])


def test_families_for_people(run: Run) -> None:
    status, rows, text = run()
    assert status == 0 and not rows
    for family in FAMILIES:
        assert f"{family.name}: {family.title}" in text and family.licence in text and family.published in text


def test_what_is_there_is_there_beside_a_file(run: Run) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--base", "x")
    assert ended.value.code == 2


# -- restorers -----------------------------------------------------------------------------------------------


@needs_weights
def test_nano_by_its_short_name_and_by_its_file(run: Run, tmp_path: Path) -> None:
    copied = shutil.copy(nano.FOLDER / nano.UNET_FILE, tmp_path)
    _, (short, bundled, alone), _ = run("nano", nano.FOLDER / nano.UNET_FILE, copied, "--json")
    assert short == {"file": "nano", "family": "pgp-nano", "is": "nano, bundled", "needs": []}
    assert bundled["family"] == alone["family"] == "pgp-nano" and bundled["needs"] == []
    assert len(alone["needs"]) == 3 and all("beside it" in need for need in alone["needs"])


def test_needs_are_fewer_the_more_there_is(run: Run, files: Path) -> None:
    faithdiff, unet, folder = files / "FaithDiff.bin", files / "unet.safetensors", files / "sdxl"
    vae, text = ("vae",), ("text",)

    def needs(*arguments: object) -> tuple[str, list[str]]:
        status, (row,), _ = run(*arguments, "--json")
        assert status == 0
        words = ["vae" if "a VAE" in n else "negative" if "negative" in n else "text" for n in row["needs"]]
        return row["family"], words

    assert needs(faithdiff) == ("faithdiff", [*vae, *text])
    assert needs(faithdiff, "--base", folder) == ("faithdiff", [])
    assert needs(faithdiff, "--base", files / "checkpoint.safetensors") == ("faithdiff", ["text"])
    assert needs(faithdiff, "--vae", folder / "vae") == ("faithdiff", ["text"])
    one = ("--base", files / "checkpoint.safetensors", "--conditioning", files / "positive.safetensors")
    assert needs(faithdiff, *one) == ("faithdiff", ["negative"])
    assert needs(faithdiff, *one, "--negative-conditioning", files / "positive.safetensors") == ("faithdiff", [])
    assert needs(unet) == ("sdxl", ["vae", "text"])
    assert needs(unet, "--guidance", files / "guidance.safetensors") == ("pgp-diffsr", ["vae", "text"])
    assert needs(unet, "--guidance", faithdiff) == ("faithdiff", ["vae", "text"])
    # What stands in a file or a folder is not needed beside it.
    assert needs(files / "checkpoint.safetensors") == ("sdxl", ["text"])
    assert needs(folder) == ("sdxl", [])
    assert needs(folder / "unet") == ("sdxl", ["vae", "text"])


def test_what_a_restorer_is_in_words(run: Run, files: Path) -> None:
    names = ("FaithDiff.bin", "unet.safetensors", "checkpoint.safetensors", "pruned.safetensors", "sdxl")
    _, rows, _ = run(*(files / n for n in names), "--json")
    words = [r["is"] for r in rows]
    assert words == [
        "FaithDiff: a UNet of SDXL, with its LQ encoder and alignment",
        "a UNet of SDXL",
        "a checkpoint of SDXL",
        "a UNet of SDXL, pruned (pgp-sdxl); with guidance (--guidance FILE) it is PGP-DiffSR",
        "a UNet of SDXL, in a folder of diffusers",
    ]


def test_a_checkpoint_alone_has_its_vae(files: Path) -> None:
    """It is not asked for, and used."""
    given = Given(model=files / "checkpoint.safetensors", conditioning=files / "positive.safetensors", cfg=1.0)
    found = find(given)
    assert found.needs == ()
    assert found.load(say=lambda _: None).device == torch.device("cpu")


# -- what is no restorer -------------------------------------------------------------------------------------


def test_files_of_ours_are_said_to_be_what_they_are(run: Run, files: Path, tmp_path: Path) -> None:
    lora = foreign_files.tensors(foreign_files.LORAS["SDXL"][0])
    s1 = {"pgp.s1": json.dumps({"timestep": 1, "rank": 4, "topology": "sdxl"})}
    save_file(lora, tmp_path / "s1.safetensors", s1)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(load_plan("pgp-sdxl").to_json()))
    asked = {
        files / "guidance.safetensors": ("guidance for sdxl", "--guidance"),
        files / "converted" / "faithdiff-guidance.safetensors": ("FaithDiff's LQ encoder", "--guidance"),
        files / "positive.safetensors": ("saved CONDITIONING", "--conditioning"),
        tmp_path / "s1.safetensors": ("a LoRA for one step (S1) of sdxl, at timestep 1", "--lora"),
        plan: ("a prune plan for sdxl, pgp-sdxl: it removes 47 blocks", "--plan"),
        files / "sdxl" / "vae": ("a VAE of", "--vae"),
        files / "sdxl" / "text_encoder": ("a text encoder", "--base"),
    }
    status, rows, _ = run(*asked, "--json")
    assert status == 0
    for row, (path, (words, goes)) in zip(rows, asked.items(), strict=True):
        assert row["file"] == str(path) and row["family"] is None and row["needs"] == []
        assert words in row["is"] and goes in row["goes"], row


def test_folders_of_loras_and_folders_of_files(run: Run, tmp_path: Path) -> None:
    lora = foreign_files.tensors(foreign_files.LORAS["SDXL"][0])
    peft, several = tmp_path / "peft", tmp_path / "loras" / "deep"
    peft.mkdir()
    several.mkdir(parents=True)
    save_file(lora, peft / "adapter_model.safetensors")
    (peft / "adapter_config.json").write_text("{}")
    for name in ("a.safetensors", "b.safetensors", ".hidden.safetensors"):
        save_file(lora, several / name)
    (several / "settings.json").write_text("{}")
    (several / "again").symlink_to(tmp_path / "loras")
    (tmp_path / "empty").mkdir()
    found_files.write_shards(tmp_path / "shards", "mine", found_files.unet(), suffix=".safetensors")
    (tmp_path / "shards" / "mine.safetensors.index.json").unlink()
    status, rows, _ = run(peft, tmp_path / "loras", tmp_path / "empty", tmp_path / "shards", "--json")
    assert status == 0
    assert [(Path(r["file"]).name, r["is"]) for r in rows] == [
        ("peft", "a LoRA for SDXL"),
        ("a.safetensors", "a LoRA for SDXL"),
        ("b.safetensors", "a LoRA for SDXL"),
        ("empty", "a folder without files of models"),
        ("mine-00001-of-00003.safetensors", "a UNet of SDXL"),
    ]


def test_a_unet_that_cannot_be_used_is_named_and_why(run: Run, tmp_path: Path) -> None:
    quantised = {**found_files.ldm(), "input_blocks.4.1.proj_in.weight.absmax": torch.ones(8)}
    save_file(quantised, tmp_path / "nf4.safetensors")
    status, (row,), _ = run(tmp_path / "nf4.safetensors", "--json")
    assert status == 0 and row["family"] is None and row["is"] == "a UNet of SDXL"
    assert "is quantised (bitsandbytes" in row["goes"]


def test_what_is_damaged_or_missing_is_said_and_the_rest_too(run: Run, files: Path, tmp_path: Path) -> None:
    whole = (files / "unet.safetensors").read_bytes()
    bad = {
        "half.safetensors": whole[: len(whole) // 2],
        "page.safetensors": b"<!DOCTYPE html><html>404</html>",
        "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "empty.safetensors": b"",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "picture.ckpt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    paths = [*(tmp_path / n for n in bad), tmp_path / "gone.safetensors", tmp_path / "picture.ckpt"]
    status, rows, text = run(*paths, files / "unet.safetensors", "--json")
    assert status == 1 and "5 of 7 files could not be read" in text
    assert ["error" in r for r in rows] == [True] * 5 + [False, False]
    assert rows[-1]["family"] == "sdxl" and rows[-2]["is"] == "a picture, no model"
    for row in rows:
        assert {"file", "family", "is", "needs"} <= row.keys() and "\n" not in json.dumps(row["is"])
    status, rows, text = run(*paths[:1])
    assert status == 1 and not rows and "half.safetensors is damaged" in text


def test_no_pickle_is_run(run: Run, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Evil()}, tmp_path / "evil.ckpt")
    status, (row,), _ = run(tmp_path / "evil.ckpt", "--json")
    assert status == 1 and "unpickling could run anything" in row["error"]
    assert not (tmp_path / "ran").exists()


# -- a file that is called nano ------------------------------------------------------------------------------


@needs_weights
def test_a_file_called_nano_is_given_by_a_path(
    run: Run, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(files / "unet.safetensors", tmp_path / "nano")
    monkeypatch.chdir(tmp_path)
    status, (bundled, file), text = run("nano", "./nano", "--json")
    assert status == 0 and bundled["family"] == "pgp-nano" and file["family"] == "sdxl"
    assert "nano is the bundled model; the file of that name here is ./nano" in text


@needs_weights
def test_a_folder_called_nano_does_not_hide_the_bundled_model(
    run: Run, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(files / "sdxl", tmp_path / "nano")
    monkeypatch.chdir(tmp_path)
    assert [r["family"] for r in run("nano", "--json")[1]] == ["pgp-nano"]
    assert [r["family"] for r in run(".", "--json")[1]] == ["sdxl"]


@needs_weights
def test_a_nano_unet_whose_name_has_no_ending_is_not_the_bundled_one(tmp_path: Path) -> None:
    shutil.copy(nano.FOLDER / nano.UNET_FILE, tmp_path / "mine")
    assert len(find(Given(model=tmp_path / "mine")).needs) == 3


def test_what_means_nothing_to_nano_is_said_of_nano_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["upscale", "a.png", "-o", "b.png", "--model", "nano", "--base", "sdxl"])
    assert ended.value.code == 2
    assert "--base means nothing to nano: leave it out, or give another --model" in capsys.readouterr().err
