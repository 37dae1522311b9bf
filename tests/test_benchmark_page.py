"""The page of a benchmark as a file: what is in it, how large it gets, and that nothing in it is obeyed."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import benchmark_scene as scene
import numpy as np
import pytest
from PIL import Image

from pgp_core.errors import PictureError
from pgp_core.evaluation.benchmark.page import budget, write_page
from pgp_core.evaluation.benchmark.page.pictures import Part, Source, pack, read
from pgp_core.evaluation.benchmark.results import Pair, Results, Row


def opened(page: Path) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    """The page's data, and its pictures by their elements' ids."""
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    found = re.findall(r'<script type="text/plain" id="([\w-]+)">([\w+/=]*)</script>', text)
    pictures = {name: Image.open(io.BytesIO(base64.b64decode(packed))) for name, packed in found}
    return json.loads(data), pictures


def noisy(path: Path, size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> Path:
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    levels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(path)
    return path


def one_row(files: dict[str, Path], kind: str = "pictures") -> Results:
    row = Row("ours", "folder", {"folder": "ours"}, files, {name: {"niqe": 5.0} for name in files})
    return Results(kind, [Pair(name) for name in files], [row], ["niqe"])


def test_all_that_was_found_is_on_it(tmp_path: Path) -> None:
    results = scene.benchmark(tmp_path)
    notes = write_page(results, tmp_path / "out" / "page.html")
    data, pictures = opened(tmp_path / "out" / "page.html")
    assert [c["label"] for c in data["columns"]] == ["LQ", *(r.name for r in results.rows), "HQ"]
    psnr = [m["name"] for m in data["metrics"]].index("psnr_y")
    for r, row in enumerate(results.rows):
        values = [s["psnr_y"] for s in row.scores.values()]
        assert data["table"]["cells"][r][psnr]["mean"] == pytest.approx(sum(values) / len(values))
        assert data["table"]["cells"][r][psnr]["count"] == len(values)
    # Model is better by 1 on every picture: there is nothing by chance in that, and the other way round as little.
    assert data["table"]["differences"][1][0][psnr]["mean"] == pytest.approx(1)
    assert data["table"]["differences"][0][1][psnr]["mean"] == pytest.approx(-1)
    assert data["table"]["differences"][1][0][psnr]["beyond"] and data["table"]["differences"][1][0][psnr]["better"]
    assert not data["table"]["differences"][0][1][psnr]["better"]
    assert data["table"]["best"][psnr] == [1]
    assert data["metrics"][-1]["missing"] == results.missing["musiq"]
    assert data["unmatched"] == results.unmatched
    assert data["pairs"][0]["failed"] == {"2": "it is damaged"}
    assert ["seed", "7"] in data["rows"][1]["settings"]
    assert ["files, unet, SHA-256", "0123abcd"] in data["rows"][1]["settings"]
    assert ["machine", "a test"] in data["made"]
    # Three rows, one of which failed on the first picture, between LQ and HQ.
    assert len(pictures) == 5 * len(results.pairs) - 1
    assert pictures["lq-1"].size == scene.SMALL and pictures["hq-1"].size == scene.LARGE
    assert len(notes) == 1 and "compressed" in notes[0]


def test_lq_is_there_pixel_by_pixel_and_the_rest_nearly(tmp_path: Path) -> None:
    results = scene.benchmark(tmp_path)
    write_page(results, tmp_path / "page.html")
    _, pictures = opened(tmp_path / "page.html")
    pair = results.pairs[1]
    assert pair.lq and pair.hq
    np.testing.assert_array_equal(np.asarray(pictures["lq-1"]), np.asarray(Image.open(pair.lq)))
    error = np.asarray(pictures["hq-1"], float) - np.asarray(Image.open(pair.hq), float)
    assert np.sqrt((error**2).mean()) < 4


def test_names_are_only_text(tmp_path: Path) -> None:
    names = [
        "<script>alert(1)</script>",
        "\"'><img src=x onerror=alert(1)>",
        "אבג",
        "a" * 220,
        "</script x",
        "b\u202ec",
    ]
    files = {name: noisy(tmp_path / "ours.png", (16, 16)) for name in names}
    results = one_row(files)
    results.rows[0].name = "<b>row</b> {{script}} {{pictures}}"
    results.unmatched = ["<script>alert(2)</script> has no partner"]
    write_page(results, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "alert(" not in re.sub(r'id="data">.*?</script>', "", text, flags=re.S)
    assert "<b>" not in text and "onerror=alert" in text and "<img src=x" not in text
    assert text.count("<script") == text.count("</script>") == 2 + len(names)
    data, _ = opened(tmp_path / "page.html")
    assert [p["name"] for p in data["pairs"]] == [*names[:5], r"b\u202ec"]
    assert data["rows"][0]["name"] == "<b>row</b> {{script}} {{pictures}}"


def test_it_asks_nothing_of_any_network(tmp_path: Path) -> None:
    write_page(scene.benchmark(tmp_path), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|<link|\ssrc=|\son\w+=", text)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'; img-src data:; ") and "unsafe" not in policy


def test_grey_16_bits_and_alpha_look_as_they_are(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    grey = noisy(tmp_path / "grey.png", (16, 16), mode="L")
    clear = noisy(tmp_path / "clear.png", (16, 16), mode="RGBA")
    shown = {n: read(Source(tmp_path / f"{n}.png")) for n in ("deep", "grey", "clear")}
    # Rounded, not cut off: Pillow alone would show white from 255 of 65535 upwards.
    np.testing.assert_array_equal(np.asarray(shown["deep"]), np.round(ramp / 257).astype(np.uint8))
    for name, file in (("grey", grey), ("clear", clear)):
        np.testing.assert_array_equal(np.asarray(shown[name]), np.asarray(Image.open(file)))
    packed = pack(shown["clear"], None)
    assert packed.alpha
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(packed.data))), np.asarray(Image.open(clear)))


def test_a_picture_that_cannot_be_read_is_named_and_the_rest_is_there(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    notes = write_page(one_row({"a": broken, "b": noisy(tmp_path / "b.png", (16, 16))}), tmp_path / "page.html")
    data, pictures = opened(tmp_path / "page.html")
    assert list(pictures) == ["row0-1"]
    assert "broken.png" in data["pairs"][0]["unread"]["row0"]
    assert "1 file cannot be shown" in notes


def test_nothing_at_all_is_a_page_too(tmp_path: Path) -> None:
    assert write_page(Results("pictures", [], [], []), tmp_path / "page.html") == []
    data, pictures = opened(tmp_path / "page.html")
    assert data["pairs"] == [] and pictures == {}


def test_bicubic_without_a_file_is_made(tmp_path: Path) -> None:
    lq, hq = noisy(tmp_path / "lq.png", (8, 8)), noisy(tmp_path / "hq.png", (32, 32))
    results = Results("pairs", [Pair("a", lq, hq)], [Row("bicubic", "bicubic")], [])
    write_page(results, tmp_path / "page.html")
    assert opened(tmp_path / "page.html")[1]["row0-0"].size == (32, 32)


def test_the_budget_holds_and_what_it_cost_is_said(tmp_path: Path) -> None:
    """Noise is what compresses least."""
    files = {f"p{i}": noisy(tmp_path / f"{i}.png", (448, 224), i) for i in range(6)}
    page = tmp_path / "page.html"
    assert write_page(one_row(files), page) == [
        "pictures on the page are compressed (WebP, quality 95): figures are of the originals"
    ]
    whole = page.stat().st_size
    fixed = whole - sum(len(s) for s in re.findall(r'id="row0-\d">([^<]*)<', page.read_text("utf-8")))

    def sizes(most: int) -> tuple[list[str], set[tuple[int, int]], int]:
        notes = write_page(one_row(files), page, most)
        assert page.stat().st_size <= most
        _, pictures = opened(page)
        return notes, {p.size for p in pictures.values()}, len(pictures)

    notes, found, count = sizes(fixed + int((whole - fixed) * 0.7))
    assert len(notes) == 1 and "quality 95" not in notes[0] and found == {(448, 224)} and count == 6
    notes, found, count = sizes(fixed + (whole - fixed) // 4)
    assert "of 6 of 6 pictures the page shows the middle only" in notes and max(found)[0] < 448 and count == 6
    notes, found, count = sizes(fixed + (whole - fixed) // 20)
    assert f"{6 - count} of 6 pictures have no room on the page, the best ones" in notes and 0 < count < 6


def test_a_cut_takes_the_same_place_of_every_size() -> None:
    """LQ's pixels are whole, so that four of HQ's lie under each."""
    part = Part.middle((101, 67), (0.37, 0.61))
    small, large = part.box((101, 67)), part.box((404, 268))
    assert large == tuple(4 * n for n in small)
    assert (small[2] - small[0], small[3] - small[1]) == (37, 40)


def test_choices_go_from_good_to_bad() -> None:
    """Bytes here are the quality times the pixels; so is what fits."""
    cost = lambda c: [c.quality * c.side**2]  # noqa: E731
    assert budget.choose(95 * 512**2 * 2 * 2, 2, 512, cost) == budget.Choice(95, 512)
    lower = budget.choose(90 * 512**2 * 2, 2, 512, cost)
    assert lower.side == 512 and 75 <= lower.quality < 90
    assert budget.choose(70 * 512**2 * 2, 2, 512, cost).side == 384
    assert budget.choose(0, 2, 512, cost) == budget.Choice(budget.LOWEST, 256)
    worse = list(budget.worse(budget.Choice(84, 512), 512))
    assert [c.quality for c in worse if c.side == 512] == [80, 75, 60] and worse[-1] == budget.Choice(60, 256)


def test_tables_for_papers_mark_the_best_and_hold_any_name(tmp_path: Path) -> None:
    results = scene.benchmark(tmp_path)
    results.rows[1].name = "ours_50%|x"
    write_page(results, tmp_path / "page.html")
    texts = opened(tmp_path / "page.html")[0]["table"]
    markdown = texts["markdown"].splitlines()
    assert sum(line.startswith("|") for line in markdown) == 2 + len(results.rows)
    assert markdown[3].startswith("| ours_50%\\|x | **27.50** [")
    assert markdown[2].startswith("| bicubic | 26.50 [")
    latex = texts["latex"]
    assert "ours\\_50\\%|x & \\textbf{27.50}" in latex and latex.count(r" \\") == 1 + len(results.rows)


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PictureError, match="cannot be written"):
        write_page(Results("pictures", [], [], []), tmp_path / "file" / "page.html")
