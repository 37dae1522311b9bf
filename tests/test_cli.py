"""The command line's contract: exit statuses, JSON lines, one clear line per error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pgp_core.cli import main
from pgp_core.restorers.nano import model as nano

WEIGHTS = (nano.FOLDER / nano.UNET_FILE).exists()
needs_weights = pytest.mark.skipif(not WEIGHTS, reason="the nano weights are not in this checkout")


def picture(path: Path, width: int = 21, height: int = 13, mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = rng.integers(0, 255, (4, 5, bands), np.uint8)
    image = Image.fromarray(noise.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    image.save(path)
    return path


def test_plan_show_prints_plain_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "show", "pgp-sdxl", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    # The paper's 984.5 M less one PEAM, and its 1555 G less that PEAM's 4.53 G at 64 x 64.
    assert data["params"] == 983_440_644
    assert data["macs_conv_linear"] / 1e9 == pytest.approx(1550.74, abs=0.005)
    assert data["macs_total"] / 1e9 == pytest.approx(1769.06, abs=0.005)
    assert data["latent"] == [128, 128]
    assert data["stacks"]["up_blocks.0.attentions.1"] == {"depth": 10, "keep": [0, 3, 6, 9]}


def test_plan_list_names_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "list", "--json"]) == 0
    names = {json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()}
    assert {"pgp-sdxl", "pgp-sdxl-coarse", "pgp-nano", "pgp-nano-coarse"} <= names


def test_plan_show_scales_with_the_latent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "show", "pgp-nano", "--latent", "64", "--json"]) == 0
    small = json.loads(capsys.readouterr().out)
    assert main(["plan", "show", "pgp-nano", "--json"]) == 0
    large = json.loads(capsys.readouterr().out)
    assert small["params"] == large["params"]
    # Convolutions are proportional to the pixels; embeddings and cross-attention's keys are not.
    assert 3.9 < large["macs_conv_linear"] / small["macs_conv_linear"] <= 4.0


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["plan"], ["plan", "show", "pgp-sdxl", "--latent", "0"]])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "1000", "four"])
def test_bad_scales_exit_2(scale: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["upscale", "a.png", "-o", str(tmp_path), f"--scale={scale}"])
    assert stop.value.code == 2


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert captured.out == ""
    assert len(lines) == 1, lines
    assert lines[0].startswith("pgp-diffsr: error: ")
    return lines[0]


def test_unknown_plan_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "show", "pgp-nowhere"]) == 1
    assert "pgp-nowhere" in error_line(capsys)


def test_missing_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upscale", str(tmp_path / "no.png"), "-o", str(tmp_path / "out")]) == 1
    assert "no.png" in error_line(capsys)


def test_folder_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert main(["upscale", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert "no picture" in error_line(capsys)


def test_bad_options_are_refused_before_anything_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = picture(tmp_path / "a.png")
    assert main(["upscale", str(a), "-o", str(tmp_path / "out"), "--steps", "0"]) == 1
    assert "steps" in error_line(capsys)
    assert main(["upscale", str(a), "-o", str(tmp_path / "out"), "--strength", "2"]) == 1
    assert "strength" in error_line(capsys)
    assert main(["upscale", str(a), "-o", str(tmp_path / "out"), "--tile", "64", "--overlap", "64"]) == 1
    assert "tiles of 64 pixels cannot overlap by 64: give larger tiles or less overlap" in error_line(capsys)


@needs_weights
def test_one_pixel_and_a_hundred_million(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (1, 1), (200, 100, 50)).save(tmp_path / "one.png")
    # Grey, so that it takes a quarter of the memory here.
    Image.new("L", (10_000, 10_000)).save(tmp_path / "large.png", compress_level=1)
    out = str(tmp_path / "out")
    assert main(["upscale", str(tmp_path / "one.png"), "-o", out, "--tile", "64", "--overlap", "16"]) == 0
    with Image.open(tmp_path / "out" / "one.png") as result:
        assert result.size == (4, 4)
        levels = np.asarray(result, float).mean((0, 1))
    assert np.abs(levels - (200, 100, 50)).max() <= 4
    capsys.readouterr()
    assert main(["upscale", str(tmp_path / "large.png"), "-o", out]) == 1
    assert "10000x10000 would become 40000x40000" in error_line(capsys)
    assert not (tmp_path / "out" / "large.png").exists()


@needs_weights
def test_upscale_writes_exact_sizes_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = picture(tmp_path / "a picture ü.jpg", 21, 13)
    out = tmp_path / "out"
    assert main(["upscale", str(source), "-o", str(out), "--scale", "3", "--json"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["width"], row["height"], row["steps"], row["seed"]) == (63, 39, 1, 0)
    assert row["peak_memory_bytes"] > 0
    with Image.open(row["output"]) as result:
        assert result.size == (63, 39)
        assert result.mode == "RGB"
    assert [p.name for p in out.iterdir()] == ["a picture ü.png"]


@needs_weights
@pytest.mark.parametrize(
    ("options", "size"),
    [
        (["--scale", "1.5"], (32, 20)),  # 31.5 and 19.5
        (["--width", "50"], (50, 31)),  # 30.95
        (["--height", "50"], (81, 50)),  # 80.77
        (["--longest", "100"], (100, 62)),  # 61.9
        (["--scale", "1"], (21, 13)),
    ],
    ids=lambda o: o[0] if isinstance(o, list) else "",
)
def test_exact_sizes(options: list[str], size: tuple[int, int], tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png", 21, 13)
    assert main(["upscale", str(source), "-o", str(tmp_path / "out"), *options]) == 0
    with Image.open(tmp_path / "out" / "a.png") as result:
        assert result.size == size


@pytest.mark.parametrize("options", [["--width", "0"], ["--longest", "99999"], ["--width", "9", "--height", "9"]])
def test_bad_sizes_exit_2(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["upscale", "a.png", "-o", str(tmp_path), *options])
    assert stop.value.code == 2


@needs_weights
def test_the_colour_fix_is_on_unless_it_is_not_wanted(tmp_path: Path) -> None:
    """What it is for: the mean over a wide area is the input's."""
    source = tmp_path / "a.png"
    Image.new("RGB", (48, 48), (20, 40, 230)).save(source)
    for fix in ("wavelet", "adain", "none"):
        assert main(["upscale", str(source), "-o", str(tmp_path / fix), "--color-fix", fix]) == 0
        result = np.asarray(Image.open(tmp_path / fix / "a.png"), float)
        if fix != "none":
            assert np.abs(result - [20, 40, 230]).max() <= 1, fix
    one, other = ((tmp_path / d / "a.png").read_bytes() for d in ("wavelet", "none"))
    assert one != other


@needs_weights
def test_results_that_are_there_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        picture(folder / name)
    out.mkdir()
    (out / "a.png").write_bytes(b"done before")
    run = ["upscale", str(folder), "-o", str(out), "--scale", "1", "--json"]
    assert main(run) == 0
    captured = capsys.readouterr()
    assert (out / "a.png").read_bytes() == b"done before"
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [(Path(r["input"]).name, r.get("skipped", False)) for r in rows] == [("a.png", True), ("b.png", False)]
    assert "1 of 2 pictures done, 1 skipped" in captured.err
    assert main(run) == 0, "nothing to do is no failure"
    assert "0 of 2 pictures done, 2 skipped" in capsys.readouterr().err
    assert main([*run, "--overwrite"]) == 0
    assert (out / "a.png").read_bytes() != b"done before"


@needs_weights
def test_names_with_spaces_and_a_leading_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "-v ö.png")
    assert main(["upscale", "-o", "out", "--scale", "1", "--", "-v ö.png"]) == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["-v ö.png"]


@needs_weights
def test_same_seed_same_picture_and_other_seed_another(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    results = []
    for name, seed in (("x", 1), ("y", 1), ("z", 2)):
        folder = tmp_path / name
        assert main(["upscale", str(source), "-o", str(folder), "--steps", "2", "--seed", str(seed)]) == 0
        results.append((folder / "a.png").read_bytes())
    assert results[0] == results[1] != results[2]


@needs_weights
def test_a_broken_picture_is_named_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    picture(folder / "good.png")
    (folder / "bad.png").write_text("no picture")
    assert main(["upscale", str(folder), "-o", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert "bad.png" in err
    assert "1 of 2" in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.png"]


@needs_weights
def test_alpha_is_kept(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png", mode="RGBA")
    assert main(["upscale", str(source), "-o", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "a.png") as result:
        assert result.mode == "RGBA"
        assert result.size == (84, 52)


@needs_weights
def test_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = picture(tmp_path / "a.png")
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    assert main(["upscale", str(source), "-o", str(blocked)]) == 1
    assert "file" in error_line(capsys)
    assert blocked.read_text() == "a file where the folder should be"
