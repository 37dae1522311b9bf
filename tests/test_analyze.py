"""``pgp-diffsr analyze`` on nano."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pgp_core.cli import main
from pgp_core.redundancy.analyze import analyze
from pgp_core.redundancy.report import load_report
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.sampling.options import SampleOptions
from pgp_core.unet.plan import load_plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pictures")
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 9, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(out / f"{i}.png")
    return out


def run(*args: Any) -> int:
    return main(["analyze", *map(str, args)])


def test_a_report_of_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.json"
    picture = tmp_path / "heat map.png"
    options = ("--steps", 3, "--cfg", 1.5, "--scale", 2, "--plot", picture, "--json")
    assert run("--images", folder, "-o", out, *options) == 0
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width == 1024
    row = json.loads(capsys.readouterr().out)
    report = load_report(out)
    assert row["pictures"] == report.measured["pictures"] == ["0.png", "1.png"]
    # Nano's latent is a quarter of the canvas: 24 x 18 pixels, framed by 32 and to multiples of 16.
    assert report.measured["latent"] == [24, 24]
    assert (report.measured["calls"], report.measured["cfg"], report.partial) == (6, 1.5, False)
    assert {s: tuple(b) for s, b in report.blocks.items()} == {
        s: e.keep for s, e in load_plan("pgp-nano").stacks.items()
    }
    for block in (b for blocks in report.blocks.values() for b in blocks.values()):
        # Two pictures with two conditionings at each of three steps.
        assert [s["phi_cos"].count for s in block.series.values()] == [4, 4, 4, 12]
    # A picture's first step has nothing before it, and not the last step of the picture before.
    assert report.modules["E_1"]["all"]["psi_kl"].count == 8


def test_reports_and_phases_are_drawn(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.json"
    maps = tmp_path / "maps.png"
    options = ("--steps", 2, "--plot", maps, "--plot-kind", "feature-maps")
    assert run("--images", folder / "0.png", "-o", out, *options) == 0
    widths = {maps: 1024}
    for kind in ("boxes", "over-time", "feature-maps"):
        picture = tmp_path / f"{kind}.png"
        widths[picture] = 512
        assert main(["plot", "report", str(out), "-o", str(picture), "--kind", kind, "--width", "512"]) == 0
    assert (tmp_path / "feature-maps.png").stat().st_size > 5000
    capsys.readouterr()
    widths[tmp_path / "phase.png"] = 640
    phase = ["plot", "phase", str(folder), "-o", str(tmp_path / "phase.png"), "--width", "640", "--json"]
    assert main(phase) == 0
    row = json.loads(capsys.readouterr().out)
    for path, width in widths.items():
        with Image.open(path) as image:
            assert image.format == "PNG" and image.width == width
    assert row["width"] == 640 and row["output"] == str(tmp_path / "phase.png")


def test_the_same_run_gives_the_same_report(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run("--images", folder / "0.png", "-o", tmp_path / f"{name}.json", "--steps", 2, "--scale", 1) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_broken_pictures_are_left_out_and_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is that of the others, to the last number."""
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "b.png").write_bytes((folder / "0.png").read_bytes()[:60])
    os.mkfifo(tmp_path / "c.png")
    few = ("--steps", 2, "--scale", 1)
    broken = [tmp_path / f"{name}.png" for name in "abc"]
    pictures = broken[0], folder / "0.png", broken[1], folder / "1.png", broken[2]
    assert run("--images", *pictures, "-o", tmp_path / "r.json", *few, "--json") == 1
    said = capsys.readouterr()
    for path in broken:
        assert len([line for line in said.err.splitlines() if path.name in line]) == 1
    assert "3 of 5 pictures failed and were left out" in said.err
    assert json.loads(said.out)["failed"] == ["a.png", "b.png"]
    assert run("--images", folder, "-o", tmp_path / "good.json", *few) == 0
    report, good = load_report(tmp_path / "r.json"), load_report(tmp_path / "good.json")
    assert not report.partial
    assert report.measured["pictures"] == ["0.png", "1.png"]
    assert (report.blocks, report.modules) == (good.blocks, good.modules)
    assert report.measured["calls"] == good.measured["calls"] == 4
    capsys.readouterr()
    assert run("--images", broken[0], "-o", tmp_path / "none.json") == 1
    assert capsys.readouterr().err.count("a.png cannot be read") == 1
    assert run("--images", *broken, "-o", tmp_path / "none.json") == 1
    assert "none of 2 pictures could be sampled" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()


def test_a_picture_that_fails_while_it_is_sampled_counts_for_nothing() -> None:
    """Of a run that is interrupted, what was sampled counts."""
    pipeline = NanoRestorer.load(one_step=False)
    canvas = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    options = SampleOptions(steps=3, cfg=1.0)

    def stop(kind: type[BaseException]) -> Any:
        def progress(picture: str, done: int, _total: int) -> None:
            if picture == "bad" and done == 2:
                raise kind("no more")

        return progress

    both = [("bad", lambda: canvas.flip(-1)), ("good", lambda: canvas)]
    errors: list[Any] = []
    report = analyze(pipeline, "nano", both, options, stop(MemoryError), lambda *e: errors.append(e))
    assert [(name, "memory" in str(e)) for name, e in errors] == [("bad", True)]
    alone = analyze(pipeline, "nano", both[1:], options)
    assert (report.blocks, report.modules, report.maps) == (alone.blocks, alone.modules, alone.maps)
    assert report.measured["calls"] == alone.measured["calls"] == 3 and not report.partial
    interrupted = analyze(pipeline, "nano", both[::-1], options, stop(KeyboardInterrupt))
    assert interrupted.partial and interrupted.measured["calls"] == 5
    assert interrupted.measured["pictures"] == ["good"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("-o", "r.txt"), "ends in .json"),
        (("-o", "there.json"), "is there already"),
        (("-o", "s.json", "--steps", 0), "steps"),
    ],
)
def test_bad_input_is_one_line(
    args: tuple[Any, ...],
    words: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.json").write_text("{}")
    assert run("--images", folder, *args) == 1
    assert words in capsys.readouterr().err
