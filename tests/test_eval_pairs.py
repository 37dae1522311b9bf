"""``pgp-diffsr eval pairs`` and ``pictures`` on small pictures, good and bad."""

from __future__ import annotations

import csv
import json
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage", reason='the evaluation needs scikit-image: pip install "pgp-diffsr[eval]"')

from pgp_core.cli import build_parser, main
from pgp_core.cli.evaluate import rows
from pgp_core.evaluation.benchmark.judging import Job, Judgement, judge
from pgp_core.evaluation.benchmark.kept import file_names
from pgp_core.evaluation.benchmark.pictures import bicubic, check_shapes, read, rgb
from pgp_core.evaluation.benchmark.workers import ENDED, Workers
from pgp_core.evaluation.metrics import METRICS, psnr_y

COUNT, SIDE = 3, 48


def smooth(seed: int, side: int = SIDE) -> Image.Image:
    """Something that is not the same everywhere, and can be enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """``lq``, ``hq`` and ``sr``: the last is HQ with some noise."""
    for name in ("lq", "hq", "sr"):
        (tmp_path / name).mkdir()
    for i in range(COUNT):
        hq = smooth(i)
        hq.save(tmp_path / "hq" / f"p{i}_HR.png")
        hq.resize((SIDE // 4, SIDE // 4), Image.Resampling.BOX).save(tmp_path / "lq" / f"p{i}_LR4.png")
        noise = np.random.default_rng(100 + i).integers(-20, 21, (SIDE, SIDE, 3))
        noisy = np.clip(np.asarray(hq).astype(int) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(tmp_path / "sr" / f"p{i}_LR4.png")
    return tmp_path


def command(folders: Path, *more: object, metrics: str | None = "psnr_y,gmsd", workers: int = 0) -> list[str]:
    return [
        "eval", "pairs", "--lq", str(folders / "lq"), "--hq", str(folders / "hq"), "--workers", str(workers),
        *(["--metrics", metrics] if metrics else []), *map(str, more),
    ]  # fmt: skip


def lines(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], str]:
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], err


def floats(path: Path) -> Any:
    return np.asarray(Image.open(path).convert("RGB"), np.float64) / 255


def test_results_are_measured_and_compared(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(folders, "--sr", folders / "sr", "--json", "-o", folders / "out")) == 0
    found, err = lines(capsys)
    pictures, summary = found[: 2 * COUNT], found[2 * COUNT :]
    assert [(p["picture"], p["row"]) for p in pictures] == [
        (f"p{i}_HR", row) for i in range(COUNT) for row in ("bicubic", "sr")
    ]
    for i, (plain, noisy) in enumerate(zip(pictures[::2], pictures[1::2], strict=True)):
        hq = Image.open(folders / "hq" / f"p{i}_HR.png")
        enlarged = Image.open(folders / "lq" / f"p{i}_LR4.png").resize(hq.size, Image.Resampling.BICUBIC)
        expected = psnr_y(np.asarray(enlarged) / 255, np.asarray(hq) / 255)
        assert plain["psnr_y"] == pytest.approx(expected, abs=1e-9)
        expected = psnr_y(floats(folders / "sr" / f"p{i}_LR4.png"), np.asarray(hq) / 255)
        assert noisy["psnr_y"] == pytest.approx(expected, abs=1e-9)
    assert [row["row"] for row in summary] == ["bicubic", "sr"]
    for name, row in zip(("bicubic", "sr"), summary, strict=True):
        values = [p["psnr_y"] for p in pictures if p["row"] == name]
        assert row["mean"]["psnr_y"] == pytest.approx(np.mean(values))
        low, high = row["interval"]["psnr_y"]
        assert min(values) <= low <= high <= max(values)
    assert summary[1]["differences"]["bicubic"]["psnr_y"]["beyond_chance"] is False, "three pictures prove nothing"
    assert "PSNR-Y (dB) ↑" in err and "bicubic" in err


def test_files_say_the_same(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(folders, "--sr", folders / "sr", "--json", "-o", folders / "out")) == 0
    found, _ = lines(capsys)
    data = json.loads((folders / "out" / "pairs.json").read_text("utf-8"))
    assert data["rows"][1]["settings"] == {"folder": str(folders / "sr")}
    assert data["made"]["pgp-diffsr"] and "eval pairs" in data["made"]["command"]
    with (folders / "out" / "pairs.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    for row, line in zip(table, found, strict=False):
        assert (row["picture"], row["row"]) == (line["picture"], line["row"])
        assert (
            float(row["psnr_y"])
            == line["psnr_y"]
            == data["rows"][line["row"] == "sr"]["scores"][line["picture"]]["psnr_y"]
        )
    markdown = (folders / "out" / "pairs.md").read_text("utf-8")
    assert "| bicubic | **" in markdown and "| sr |" in markdown
    assert "<html" in (folders / "out" / "index.html").read_text("utf-8")


@pytest.mark.parametrize("more", [[], ["--fidelity", "4", "--color-fix", "adain"]])
def test_a_model_s_pictures_are_what_upscale_makes(
    folders: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    """The row without --sr and --model is nano."""
    assert main(command(folders, *more, "--json", "-o", folders / "out")) == 0
    found, _ = lines(capsys)
    assert {line["row"] for line in found} == {"bicubic", "nano"}
    assert main(["upscale", str(folders / "lq"), "-o", str(folders / "up"), *more]) == 0
    for i in range(COUNT):
        ours = floats(folders / "out" / "pictures" / "nano" / f"p{i}_HR.png")
        assert np.array_equal(ours, floats(folders / "up" / f"p{i}_LR4.png"))
        (line,) = [x for x in found if x.get("picture") == f"p{i}_HR" and x["row"] == "nano"]
        assert line["psnr_y"] == pytest.approx(psnr_y(ours, floats(folders / "hq" / f"p{i}_HR.png")), abs=1e-9)
        assert line["seconds"] > 0
    settings = json.loads((folders / "out" / "pairs.json").read_text("utf-8"))["rows"][1]["settings"]
    assert settings["recipe"]["steps"] == 1 and all(len(digest) == 64 for digest in settings["sha256"].values())


def test_a_second_run_takes_up_what_is_there(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folders / "out"
    assert main(command(folders, "-o", out)) == 0
    made = sorted((out / "pictures" / "nano").glob("*.png"))
    before = [p.stat().st_mtime_ns for p in made]
    made[1].unlink()
    # Another picture of the same name.
    smooth(9, SIDE // 4).save(folders / "lq" / "p2_LR4.png")
    capsys.readouterr()
    assert main(command(folders, "-o", out)) == 0
    assert "nano: 1 of 3 pictures are there already" in capsys.readouterr().err
    after = [p.stat().st_mtime_ns for p in made]
    assert after[0] == before[0] and after[1] != before[1] and after[2] != before[2]


def test_other_settings_lose_nothing(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folders / "out"
    more = ("--model", "nano", "--name", "mine")
    assert main(command(folders, *more, "-o", out)) == 0
    kept = (out / "pictures" / "mine" / "p0_HR.png").read_bytes()
    assert main(command(folders, *more, "--color-fix", "none", "-o", out)) == 1
    assert "made otherwise (options" in capsys.readouterr().err
    assert (out / "pictures" / "mine" / "p0_HR.png").read_bytes() == kept
    assert main(command(folders, *more, "--color-fix", "none", "--overwrite", "-o", out)) == 0
    assert (out / "pictures" / "mine" / "p0_HR.png").read_bytes() != kept


def test_files_of_others_are_not_written_over(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = folders / "out" / "pictures" / "nano" / "p0_HR.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"mine")
    assert main(command(folders, "-o", folders / "out")) == 1
    assert "do not say how they were made" in capsys.readouterr().err
    assert theirs.read_bytes() == b"mine"


def test_what_is_wrong_with_one_picture_costs_no_other(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "hq" / "p0_HR.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    smooth(1, SIDE - 1).save(folders / "sr" / "p1_LR4.png")
    smooth(7).save(folders / "lq" / "alone.png")
    assert main(command(folders, "--sr", folders / "sr", "--json")) == 1
    found, err = lines(capsys)
    errors = {(x["picture"], x["row"]): x["error"] for x in found if "error" in x}
    assert set(errors) == {("p0_HR", "bicubic"), ("p0_HR", "sr"), ("p1_HR", "sr")}
    assert errors["p1_HR", "sr"] == "it has 47x47 pixels, its HQ picture 48x48"
    assert err.count("p0_HR: its HQ picture") == 1, "said once, not for every row"
    assert "alone.png has no HQ picture" in err and "the rows have different pictures" in err
    assert found[-1]["pictures"] == {"psnr_y": 1, "gmsd": 1} and found[-1]["interval"]["psnr_y"] is None


def test_one_without_partner_is_no_failure(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smooth(7).save(folders / "lq" / "alone.png")
    (folders / "sr" / "p2_LR4.png").unlink()
    assert main(command(folders, "--sr", folders / "sr")) == 0
    err = capsys.readouterr().err
    assert "alone.png has no HQ picture" in err and "p2_HR has no result in" in err and "sr: 2 of 3 pictures" in err


@pytest.mark.parametrize("empty", ["lq", "hq", "sr"])
def test_an_empty_folder_is_named(folders: Path, capsys: pytest.CaptureFixture[str], empty: str) -> None:
    for file in (folders / empty).iterdir():
        file.unlink()
    assert main(command(folders, "--sr", folders / "sr")) == 1
    assert "there is no picture in the folder" in capsys.readouterr().err


def test_a_metric_without_network_is_named(folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folders / "nothing"))
    assert main(command(folders, "--sr", folders / "sr", metrics="psnr_y,lpips")) == 0
    err = capsys.readouterr().err
    assert "lpips: " in err and "—" in err
    assert main(command(folders, "--sr", folders / "sr", metrics="lpips")) == 1
    assert "nothing could be measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "metrics", "words"),
    [
        ([], "psnr", "psnr is no metric: there are psnr_y"),
        ([], ",", "--metrics needs a name"),
        (["--sr", "x", "--steps", "3"], None, "--steps means nothing to finished results"),
        (["--steps", "3", "--sr", "x"], None, "--steps means nothing to finished results"),
        (["--model", "nano", "--one-step", "--steps", "3"], None, "--steps is not allowed with --one-step"),
        (["--name", "a", "--model", "nano"], None, "--name stands behind"),
        (["--model", "nano", "--prompt", "a"], None, "--prompt means nothing to nano"),
        (["--backbone", "ssim=x"], None, "belongs to no metric"),
    ],
)
def test_wrong_usage(
    folders: Path, capsys: pytest.CaptureFixture[str], more: list[str], metrics: str | None, words: str
) -> None:
    with pytest.raises(SystemExit) as e:
        main(command(folders, *more, metrics=metrics))
    assert e.value.code == 2
    assert words in capsys.readouterr().err


def asked(*words: str) -> list[tuple[str, str, int | None]]:
    """Kind, name and steps of the rows of a command line."""
    args = build_parser().parse_args(["eval", "pairs", "--lq", "a", "--hq", "b", *words])
    found = rows.asked(args, ["bicubic"])
    return [(row.kind, row.name, row.args.steps if row.args else None) for row in found]


def test_options_belong_to_the_model_before_them() -> None:
    assert asked() == [("model", "nano", None)]
    assert asked("--steps", "4") == [("model", "nano", 4)]
    assert asked("--model", "nano", "--model", "nano", "--steps", "4") == [
        ("model", "nano", None),
        ("model", "nano 4 steps", 4),
    ]
    assert asked("--steps", "8", "--model", "nano", "--steps", "4", "--sr", "x/osediff", "--model", "nano") == [
        ("model", "nano 4 steps", 4),
        ("folder", "osediff", None),
        ("model", "nano 8 steps", 8),
    ]
    assert asked("--model", "nano", "--name", "a", "--sr", "b", "--name", "c") == [
        ("model", "a", None),
        ("folder", "c", None),
    ]
    assert asked("--sr", "x/bicubic", "--sr", "y/bicubic") == [
        ("folder", "bicubic (2)", None),
        ("folder", "bicubic (3)", None),
    ]


def test_a_base_alone_is_a_row() -> None:
    assert asked("--base", "sdxl") == [("model", "sdxl", None)]
    assert asked("--base", "sdxl", "--sr", "x") == [("folder", "x", None), ("model", "sdxl", None)]
    assert asked("--sr", "x", "--base", "sdxl", "--steps", "2") == [("folder", "x", None), ("model", "sdxl", 2)]
    found = asked("--base", "sdxl", "--model", "one.safetensors", "--model", "two.safetensors")
    assert [name for _, name, _ in found] == ["one", "two"]


def test_loras_are_added_to_one_row_only() -> None:
    args = build_parser().parse_args(
        shlex.split("eval pairs --lq a --hq b --base s --lora c --model x.safetensors --lora d --model y.safetensors")
    )
    found = rows.asked(args, [])
    assert [[p.name for p in row.args.lora] for row in found if row.args] == [["c", "d"], ["c"]]


def test_rows_have_folders_that_every_system_takes() -> None:
    assert file_names(["nano", "NANO", "a/b:c?", ".."]) == {
        "nano": "nano",
        "NANO": "NANO-2",
        "a/b:c?": "a-b-c",
        "..": "row",
    }


def job(file: Path, hq: Path, lq: Path | None = None, **more: Any) -> Job:
    return Job("row", "pair", file, hq, lq, ("psnr_y",), **more)


def test_grey_is_three_channels_alike(tmp_path: Path) -> None:
    grey, colour = tmp_path / "grey.png", tmp_path / "colour.png"
    smooth(1).convert("L").save(grey)
    smooth(1).convert("L").convert("RGB").save(colour)
    assert np.array_equal(rgb(read(grey)), rgb(read(colour)))
    assert judge(job(grey, colour)).scores == judge(job(colour, colour)).scores


def test_16_bits_are_compared_as_they_are(tmp_path: Path) -> None:
    pyvips = pytest.importorskip("pyvips")
    levels = np.random.default_rng(2).integers(0, 65536, (16, 16, 3)).astype(np.uint16)
    pyvips.Image.new_from_array(levels).copy(interpretation="rgb16").write_to_file(str(tmp_path / "deep.png"))
    picture = read(tmp_path / "deep.png")
    assert np.array_equal(rgb(picture), levels / 65535)
    # Enlarged with 16 bits too: a row of Pillow's float resampling, rounded.
    large = bicubic(picture, 64, 64)
    plane = Image.fromarray(levels[..., 0].astype(np.float32)).resize((64, 64), Image.Resampling.BICUBIC)
    assert large.pixels.dtype == np.uint16
    assert np.array_equal(large.pixels[..., 0], np.clip(np.rint(np.asarray(plane)), 0, 65535))


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    clear, half = tmp_path / "clear.png", tmp_path / "half.png"
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(clear)
    Image.new("RGBA", (20, 20), (0, 0, 0, 51)).save(half)
    assert np.array_equal(rgb(read(clear)), np.ones((20, 20, 3)))
    assert np.allclose(rgb(read(half)), 0.8)
    found = judge(job(clear, half))
    assert found.transparent
    assert found.scores["psnr_y"] == pytest.approx(psnr_y(np.ones((20, 20, 3)), np.full((20, 20, 3), 0.8)))


@pytest.mark.parametrize(
    ("lq", "hq", "good"),
    [
        ((128, 128), (512, 512), True),
        ((64, 48), (64, 48), True),
        ((510, 338), (2040, 1353), True),
        ((100, 67), (333, 222), True),
        ((128, 90), (512, 512), False),
        ((512, 512), (128, 128), False),
        ((40, 30), (120, 160), False),
    ],
)
def test_pairs_are_of_one_shape(lq: tuple[int, int], hq: tuple[int, int], good: bool) -> None:
    if good:
        check_shapes(lq, hq)
    else:
        with pytest.raises(ValueError, match=f"{lq[0]}x{lq[1]} and {hq[0]}x{hq[1]}"):
            check_shapes(lq, hq)


@pytest.mark.parametrize("hq", [(48, 48), (45, 47), (12, 12), (30, 31)])
def test_a_result_has_its_hq_picture_s_size(tmp_path: Path, hq: tuple[int, int]) -> None:
    """Whatever the scale, whole or not, and where the sides are no multiples."""
    (tmp_path / "lq").mkdir()
    (tmp_path / "hq").mkdir()
    smooth(0, 12).save(tmp_path / "lq" / "a.png")
    smooth(0, 48).resize(hq).save(tmp_path / "hq" / "a.png")
    assert main(command(tmp_path, "-o", tmp_path / "out", metrics="psnr_y")) == 0
    for row in ("bicubic", "nano"):
        assert Image.open(tmp_path / "out" / "pictures" / row / "a.png").size == hq


def test_a_metric_that_fails_for_a_picture_is_said(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(folders, "--sr", folders / "sr", "--json", metrics="psnr_y,niqe")) == 0
    found, err = lines(capsys)
    assert found[0]["niqe"] is None and found[0]["psnr_y"] > 0
    assert "niqe could not be measured of p0_HR, p1_HR, p2_HR (3 in all)" in err


def test_processes_measure_the_same(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for workers in (0, 2):
        assert main(command(folders, "--sr", folders / "sr", "--json", workers=workers)) == 0
        found.append(lines(capsys)[0])
    assert found[0] == found[1]


class Killer(Job):
    """A job that ends the process that takes it, as the system does for want of memory."""

    def __reduce__(self) -> Any:
        return os._exit, (9,)


def test_a_process_that_is_ended_costs_its_own_picture_only(folders: Path) -> None:
    file, hq = folders / "sr" / "p0_LR4.png", folders / "hq" / "p0_HR.png"
    found: list[Judgement] = []
    said: list[str] = []
    with Workers(2, found.append, said.append) as workers:
        for i in range(3):
            kind = Killer if i == 1 else Job
            workers.submit(kind("row", f"p{i}", file, hq, None, ("psnr_y",)))
        workers.finish()
    assert sorted((f.pair, f.error) for f in found) == [("p0", None), ("p1", ENDED), ("p2", None)]
    assert len(said) == 1


def test_photographs_without_reference(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = folders / "photos"
    large.mkdir()
    grain = np.random.default_rng(1).integers(-30, 31, (200, 200, 3))
    for i in range(2):
        picture = np.asarray(smooth(i, 200)).astype(int)
        Image.fromarray(np.clip(picture + (i + 1) * grain // 2, 0, 255).astype(np.uint8)).save(large / f"{i}.png")
    argv = ["eval", "pictures", str(large), "--metrics", "niqe", "--workers", "0", "--json", "-o", str(folders / "o")]
    assert main(argv) == 0
    found, _ = lines(capsys)
    assert [(x.get("picture"), x["row"]) for x in found] == [("0", "photos"), ("1", "photos"), (None, "photos")]
    measure = METRICS["niqe"].measure
    assert measure is not None
    assert found[0]["niqe"] == pytest.approx(measure(floats(large / "0.png")))
    assert {p.name for p in (folders / "o").iterdir()} == {"pictures.csv", "pictures.json", "pictures.md", "index.html"}
    with pytest.raises(SystemExit) as e:
        main(["eval", "pictures", str(large), "--metrics", "psnr_y"])
    assert e.value.code == 2 and "compares with a picture" in capsys.readouterr().err


def test_a_second_run_at_the_same_time_is_told(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pgp_core.files.locks import locked

    with locked(folders / "out", folder=True):
        assert main(command(folders, "--sr", folders / "sr", "-o", folders / "out")) == 1
    assert "is being written by" in capsys.readouterr().err


def test_row_options_are_those_of_upscale() -> None:
    upscale = vars(build_parser().parse_args(["upscale", "a", "-o", "b"]))
    assert set(rows.defaults()) - {"name"} <= set(upscale)
    assert {k: upscale[k] for k in rows.defaults() if k != "name"} == {
        k: v for k, v in rows.defaults().items() if k != "name"
    }
