"""The evaluation's tables on pipelines whose answers are known, and on a small untrained nano."""

from __future__ import annotations

import json
import os
import statistics
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("skimage", reason='the evaluation needs scikit-image: pip install "pgp-diffsr[eval]"')

from pgp_core.conditioning.conditioning import Conditioning
from pgp_core.errors import Cancelled, PGPError, PictureError
from pgp_core.evaluation import mechanism, quality, report
from pgp_core.evaluation.cases import Case, cases, picture_of
from pgp_core.evaluation.mechanism import mechanism_table
from pgp_core.evaluation.metrics import AGAINST_HQ, psnr_y
from pgp_core.evaluation.photographs import photographs
from pgp_core.evaluation.quality import quality_table
from pgp_core.evaluation.sheet import sheet
from pgp_core.guidance.module import Guidance
from pgp_core.restorers.nano import model as nano
from pgp_core.restorers.nano.family import NANO
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.sampling.options import SampleOptions
from pgp_core.training.degradation import fixed_recipe
from pgp_core.unet.known import NANO_SHAPE
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import load_plan


@pytest.fixture
def pictures() -> dict[str, Image.Image]:
    """Three small pictures with some detail and some flat places."""
    made = {}
    for i, name in enumerate(("a", "b", "c")):
        rng = np.random.default_rng(i)
        blocks = rng.integers(0, 255, (4, 6, 3)).repeat(16, 0).repeat(16, 1)
        blocks[:32] = (blocks[:32] + rng.integers(-40, 40, (32, 96, 3))).clip(0, 255)
        made[name] = Image.fromarray(blocks.astype(np.uint8))
    return made


class Fake:
    """A pipeline that knows the HQ pictures and gives them back with an error of its caller's choice."""

    name, device, frame, recipe = "fake", torch.device("cpu"), NANO.frame, NANO.recipe(False, {"cfg": 1.5})

    def __init__(self, pictures: dict[str, Image.Image], error: Any):
        self.known = cases(pictures)
        self.error = error
        self.calls: list[tuple[str, SampleOptions | None, dict[str, Any]]] = []
        self.change: dict[str, Any] = {}

    def changed(self, **change: Any) -> Fake:
        """The same without something; its calls are known to the whole one."""
        other = copy(self)
        other.change = change
        return other

    def which(self, canvas: torch.Tensor) -> Case:
        return next(c for c in self.known if torch.equal(c.canvas, canvas))

    def restore(self, canvas: torch.Tensor, options: SampleOptions | None = None, *_: Any) -> torch.Tensor:
        case = self.which(canvas)
        self.calls.append((case.name, options, self.change))
        levels = np.asarray(case.hq, np.float32) + self.error(case.name, options, self.change)
        return torch.from_numpy(levels.clip(0, 255) / 255).permute(2, 0, 1)[None]


def off_by(picture: Image.Image, levels: float) -> float:
    """PSNR-Y of a picture that is wrong by so many levels where that is not cut off."""
    wrong = (np.asarray(picture, np.float64) + levels).clip(0, 255).round()
    return psnr_y(wrong / 255, np.asarray(picture, np.float64) / 255)


# Photographs


def test_photographs() -> None:
    found = photographs()
    assert set(found) == {"astronaut", "chelsea", "coffee", "hubble_deep_field", "motorcycle_left", "rocket"}
    for picture in found.values():
        assert (picture.mode, picture.size) == ("RGB", (256, 256))
        assert np.ptp(np.asarray(picture, int), axis=2).mean() > 1, "grey"


def test_photographs_are_middles_of_the_wheel_s() -> None:
    import skimage.data

    whole = skimage.data.astronaut()  # in the wheel, so nothing is downloaded
    np.testing.assert_array_equal(np.asarray(photographs(100)["astronaut"]), whole[206:306, 206:306])


def test_photographs_need_the_wheel_s_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import skimage

    monkeypatch.setattr(skimage, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(PGPError, match=r"no .*astronaut\.png"):
        photographs()


def test_cases(pictures: dict[str, Image.Image]) -> None:
    case = cases(pictures)[1]
    assert case.name == "b"
    assert case.lq.size == (24, 16)
    assert case.lq.tobytes() == fixed_recipe(pictures["b"]).tobytes()
    assert case.canvas.shape == (1, 3, 64, 96)
    lanczos = np.asarray(case.lq.resize((96, 64), Image.Resampling.LANCZOS))
    np.testing.assert_allclose(case.canvas[0].permute(1, 2, 0) * 255, lanczos, atol=1e-4)


def test_picture_of_rounds() -> None:
    levels = torch.tensor([0.0, 0.49, 0.51, 254.6]) / 255
    picture = picture_of(levels.view(1, 1, 1, 4).expand(1, 3, 1, 4))
    assert [picture.getpixel((x, 0)) for x in range(4)] == [(v,) * 3 for v in (0, 0, 1, 255)]


# Quality


def test_quality_table(pictures: dict[str, Image.Image]) -> None:
    one = Fake(pictures, lambda *_: 2.0)
    many = Fake(pictures, lambda name, options, change: 3.0 + options.seed + 4 * (options.start == "lq"))
    seen, steps = [], []
    table = quality_table(
        one,
        many,
        seeds=(5, 7),
        denoise=0.25,
        pictures=pictures,
        progress=lambda done, total: steps.append((done, total)),
        on_picture=lambda *args: seen.append(args),
    )
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    rows = table["rows"]
    assert list(rows) == ["bicubic", "lanczos", "one_step", "noise", "lq"]
    for name, hq in pictures.items():
        assert rows["one_step"]["photographs"][name]["psnr_y"] == pytest.approx([off_by(hq, 2)])
        assert rows["noise"]["photographs"][name]["psnr_y"] == pytest.approx([off_by(hq, 8), off_by(hq, 10)])
        assert rows["lq"]["photographs"][name]["psnr_y"] == pytest.approx([off_by(hq, 12), off_by(hq, 14)])
        bicubic = np.asarray(fixed_recipe(hq).resize(hq.size, Image.Resampling.BICUBIC)) / 255
        assert rows["bicubic"]["photographs"][name]["psnr_y"] == pytest.approx([psnr_y(bicubic, np.asarray(hq) / 255)])
        assert set(rows["lq"]["photographs"][name]) == set(AGAINST_HQ)
    per_seed = [statistics.fmean(off_by(hq, e) for hq in pictures.values()) for e in (8, 10)]
    assert rows["noise"]["mean"]["psnr_y"] == pytest.approx(statistics.fmean(per_seed))
    assert rows["noise"]["spread"]["psnr_y"] == pytest.approx(abs(per_seed[0] - per_seed[1]) / 2**0.5)
    assert rows["noise"]["seeds"] == [5, 7]
    assert rows["one_step"]["spread"]["psnr_y"] is None and rows["one_step"]["seeds"] is None
    assert steps == [(i + 1, 21) for i in range(21)]
    assert len(seen) == 21 and {s[0] for s in seen} == set(rows)
    # What each row asked of its pipeline.
    assert [c[1] for c in one.calls] == [None] * 3
    assert {(o.start, o.denoise, o.seed, o.steps, o.cfg) for _, o, _ in many.calls} == {
        *(("noise", 1.0, s, 20, 1.5) for s in (5, 7)),
        *(("lq", 0.25, s, 20, 1.5) for s in (5, 7)),
    }


def test_quality_markdown(pictures: dict[str, Image.Image]) -> None:
    table = quality_table(
        Fake(pictures, lambda *_: 2), Fake(pictures, lambda _, o, __: o.seed), (4, 6), 0.4, None, pictures
    )
    text = quality.render_markdown(table)
    lines = text.splitlines()
    rows = table["rows"]
    mean, spread = rows["noise"]["mean"]["psnr_y"], rows["noise"]["spread"]["psnr_y"]
    assert any(line.startswith(f"| 20 steps from noise | {mean:.2f} ± {spread:.2f} |") for line in lines)
    assert any(line.startswith(f"| bicubic | {rows['bicubic']['mean']['psnr_y']:.2f} |") for line in lines)
    assert any(line.startswith("| b, 20 steps from LQ, denoise 0.4 | ") for line in lines)
    tables = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in tables} == {len(AGAINST_HQ) + 2}
    assert len(tables) == 2 + 5 + 2 + 15


def test_quality_can_be_cancelled(pictures: dict[str, Image.Image]) -> None:
    pipeline = Fake(pictures, lambda *_: 1)
    with pytest.raises(Cancelled):
        quality_table(pipeline, pipeline, pictures=pictures, progress=lambda done, _: done < 8)
    assert len(pipeline.calls) == 2  # six pictures by Pillow, then two of one step


# Mechanism


def test_mechanism_table(pictures: dict[str, Image.Image]) -> None:
    cost = {"on": 1.0, "off": 6.0, "shuffled": 5.0, "no_phase": 3.0}

    def error(name: str, options: SampleOptions | None, change: dict[str, Any]) -> float:
        variant = {"peam": "off", "peam_lq": "shuffled", "exchange": "no_phase"}.get(next(iter(change), ""), "on")
        if change.get("base") is False:
            return 2 * cost[variant]
        if variant == "no_phase" and name == "c":
            return 0.5 if options is None else cost["on"] + options.seed  # no loss on this one
        return cost[variant] + (options.seed if options else 0)

    pipeline = Fake(pictures, error)
    table = mechanism_table(pipeline, pipeline, seeds=(0, 1, 2), pictures=pictures, change=Fake.changed)
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    many = table["modes"]["multi_step"]["variants"]
    assert list(many) == ["on", "off", "shuffled", "no_phase"]
    for variant in ("on", "off", "shuffled"):
        for name, hq in pictures.items():
            expected = [off_by(hq, cost[variant] + seed) for seed in range(3)]
            assert many[variant]["photographs"][name]["psnr_y"] == pytest.approx(expected)
    paired = [
        statistics.fmean(off_by(hq, 6 + seed) - off_by(hq, 1 + seed) for hq in pictures.values()) for seed in range(3)
    ]
    difference = many["off"]["difference"]["psnr_y"]
    assert difference["mean"] == pytest.approx(statistics.fmean(paired))
    assert difference["spread"] == pytest.approx(statistics.stdev(paired))
    assert difference["worse_on"] == 3
    assert many["no_phase"]["difference"]["psnr_y"]["worse_on"] == 2
    assert "difference" not in many["on"]
    one = table["modes"]["one_step"]["variants"]
    assert one["off"]["spread"]["psnr_y"] is None
    alone = table["modes"]["peam_alone"]["variants"]
    for variant, levels in cost.items():
        assert alone[variant]["photographs"]["a"]["psnr_y"] == pytest.approx([off_by(pictures["a"], 2 * levels)] * 3)
    # Nothing but the named part is changed, and the other picture is another one.
    for name, options, asked in pipeline.calls:
        change = {k: v for k, v in asked.items() if k != "base"}
        assert asked.get("base", False) is False
        assert change in ({}, {"peam": False}, {"exchange": False}) or list(change) == ["peam_lq"]
        if "peam_lq" in change:
            assert pipeline.which(change["peam_lq"]).name == {"a": "b", "b": "c", "c": "a"}[name]
        assert options is None or (options.start, options.steps, options.cfg) == ("noise", 20, 1.5)
    assert len(pipeline.calls) == 4 * 3 * (1 + 3 + 3)


def test_mechanism_markdown(pictures: dict[str, Image.Image]) -> None:
    pipeline = Fake(pictures, lambda _, options, change: 1 + 3 * len(change) + (options.seed if options else 0))
    table = mechanism_table(pipeline, pipeline, seeds=(0, 1), pictures=pictures, change=Fake.changed)
    lines = mechanism.render_markdown(table).splitlines()
    off = table["modes"]["multi_step"]["variants"]["off"]
    cells = next(
        line for line in lines[lines.index("## 20 steps from noise") :] if line.startswith("| PEAM off")
    ).split(" | ")
    assert cells[1] == f"{off['mean']['psnr_y']:.2f} ± {off['spread']['psnr_y']:.2f}"
    delta = off["difference"]["psnr_y"]
    assert cells[3] == f"{delta['mean']:+.2f} ± {delta['spread']:.2f}" and cells[3].startswith("-")
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


# Sheet


def test_sheet() -> None:
    hq = {"x": Image.new("RGB", (40, 24), "red"), "y": Image.new("RGB", (40, 24), "blue")}
    lq = {name: picture.resize((10, 6)) for name, picture in hq.items()}
    lq["y"].putpixel((9, 5), (0, 255, 0))
    page = sheet({"HQ": hq, "LQ": lq})
    assert page.mode == "RGB" and page.width == 2 * 40 + 4
    pixels = np.asarray(page)
    assert (pixels[-1, -4:] == [0, 255, 0]).all() and (pixels[-4:, -1] == [0, 255, 0]).all()  # one LQ pixel is 4x4
    assert (pixels == [255, 0, 0]).all(-1).sum() == 2 * 40 * 24
    assert (pixels == [0, 0, 255]).all(-1).sum() == 2 * 40 * 24 - 16
    label = pixels[: page.height - 2 * 24 - 4 - 1, :40]
    assert label.min() < 128, "no label"


# With a real pipeline


@pytest.fixture
def untrained() -> NanoRestorer:
    """Nano's own graph with random weights."""
    torch.manual_seed(0)
    unet = build_unet(NANO_SHAPE, load_plan("pgp-nano")).eval()
    guidance = Guidance(nano.guidance_spec()).eval()
    prompts = [Conditioning.of_prompt(torch.randn(1, 8, 64), torch.randn(1, 64), nano.TIME_IDS) for _ in range(2)]
    return NanoRestorer(unet, guidance, *prompts, NANO.recipe(False, {"cfg": 1.5}), prediction="sample")


@pytest.fixture
def tiny() -> dict[str, Image.Image]:
    return {name: picture.resize((32, 32)) for name, picture in photographs(128).items() if name < "coffee"}


def one_step_of(pipeline: NanoRestorer) -> NanoRestorer:
    p = pipeline
    return NanoRestorer(p.unet, p.guidance, p.positive, p.negative, NANO.recipe(True), p.prediction)


def test_tables_of_an_untrained_nano(untrained: NanoRestorer, tiny: dict[str, Image.Image]) -> None:
    one_step = one_step_of(untrained)
    table = quality_table(one_step, untrained, seeds=(0,), pictures=tiny)
    for row in table["rows"].values():
        assert all(np.isfinite(v) for v in row["mean"].values())
    case = cases(tiny)[0]
    own = picture_of(untrained.restore(case.canvas, SampleOptions(20, 1.5, 0)))
    expected = psnr_y(np.asarray(own) / 255, np.asarray(case.hq) / 255)
    assert table["rows"]["noise"]["photographs"][case.name]["psnr_y"] == pytest.approx([expected])


def test_every_variant_reaches_the_model(untrained: NanoRestorer, tiny: dict[str, Image.Image]) -> None:
    one_step = one_step_of(untrained)
    modes = mechanism_table(one_step, untrained, seeds=(3,), pictures=tiny)["modes"]
    for mode in modes.values():
        figures = {v: row["photographs"]["astronaut"]["psnr_y"][0] for v, row in mode["variants"].items()}
        assert len(set(figures.values())) == 4, figures
    rows = [modes[m]["variants"]["on"] for m in ("multi_step", "peam_alone")]
    many, alone = (row["photographs"]["astronaut"]["psnr_y"] for row in rows)
    assert many != alone


# Reports


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, pictures: dict[str, Image.Image], tmp_path: Path) -> Path:
    """A folder of stand-in files, and a loader that knows them."""
    folder = tmp_path / "weights"
    for name in (nano.UNET_FILE, nano.GUIDANCE_FILE, nano.CONTEXTS_FILE, nano.S1_FILE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")

    def load(one_step: bool, folder: Path) -> Fake:
        return Fake(pictures, lambda _, options, change: 9 if one_step else 3 + options.seed)

    monkeypatch.setattr(report.NanoRestorer, "load", load)
    monkeypatch.setattr(mechanism, "ablated", Fake.changed)
    monkeypatch.setattr("pgp_core.evaluation.cases.photographs", lambda: pictures)
    return folder


def test_run_quality(loaded: Path, tmp_path: Path, pictures: dict[str, Image.Image]) -> None:
    out = tmp_path / "new" / "out"
    data = report.run("quality", loaded, (1, 2), out, denoise=0.3)
    assert sorted(p.name for p in out.iterdir()) == ["quality.json", "quality.md", "quality.png"]
    assert json.loads((out / "quality.json").read_text()) == data
    assert data["denoise"] == 0.3 and data["seeds"] == [1, 2]
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert data["weights"] == dict.fromkeys(
        (nano.UNET_FILE, nano.GUIDANCE_FILE, nano.CONTEXTS_FILE, nano.S1_FILE), empty
    )
    assert (out / "quality.md").read_text().startswith("# Quality")
    page = np.asarray(Image.open(out / "quality.png").convert("RGB"), int)
    height, width = 64, 96
    first_row = page[-3 * height - 2 * 4 :][:height]
    columns = [first_row[:, i * (width + 4) :][:, :width] for i in range(5)]
    hq = np.asarray(pictures["a"], int)
    expected = [hq, None, None, (hq + 9).clip(0, 255), (hq + 4).clip(0, 255)]  # 4: seed 1, the first
    for got, want in zip(columns, expected, strict=True):
        if want is not None:
            np.testing.assert_array_equal(got, want)


def test_run_mechanism(loaded: Path, tmp_path: Path) -> None:
    data = report.run("mechanism", loaded, (0, 1, 2), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "mechanism.json").read_text()) == data
    assert (tmp_path / "out" / "mechanism.md").read_text().startswith("# Mechanism")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_run_refuses(loaded: Path, tmp_path: Path) -> None:
    with pytest.raises(PGPError, match="not 'beauty'"):
        report.run("beauty", loaded)
    with pytest.raises(PGPError, match="at least one seed"):
        report.run("quality", loaded, ())
    (tmp_path / "file").write_text("")
    with pytest.raises(PictureError, match="cannot be made"):
        report.run("quality", loaded, (0,), tmp_path / "file" / "out")


def test_run_leaves_nothing_half_written(loaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    out = tmp_path / "out"
    with monkeypatch.context() as m:
        m.setattr(os, "replace", full)
        with pytest.raises(PictureError, match=r"cannot be written: no space left"):
            report.run("mechanism", loaded, (0,), out)
    assert list(out.iterdir()) == []
    with pytest.raises(Cancelled):
        report.run("mechanism", loaded, (0,), out, progress=lambda *_: False)
    assert list(out.iterdir()) == []
