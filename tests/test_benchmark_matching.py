"""Which pictures a benchmark takes for pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pgp_core.errors import PGPError, PictureError
from pgp_core.evaluation.benchmark.matching import bare, match_folders, match_pairs, match_results, pictures_in


def folder(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        file = path / (name if "." in name else f"{name}.png")
        Image.new("RGB", (2, 2)).save(file)
    return path


def pairs(tmp_path: Path, lq: tuple[str, ...], hq: tuple[str, ...]) -> list[tuple[str, str]]:
    found = match_pairs(pictures_in(folder(tmp_path / "lq", *lq)), pictures_in(folder(tmp_path / "hq", *hq)))
    return [(p.lq.stem, p.name) for p in found.pairs if p.lq]


@pytest.mark.parametrize(
    ("lq", "hq"),
    [
        ("Canon_001_LR4", "Canon_001_HR"),
        ("Canon_001_LR4", "Canon_001_LR4"),
        ("0801x4", "0801"),
        ("babyx4", "baby"),
        ("img_001_SRF_4_LR", "img_001_SRF_4_HR"),
        ("sony_64_x1", "sony_64_x4"),
        ("a_lr", "A_HR4"),
        ("a_LR4", "a_GT"),
        ("p_2x", "p"),
    ],
)
def test_the_field_s_suffixes_do_not_count(tmp_path: Path, lq: str, hq: str) -> None:
    assert pairs(tmp_path, (lq, "other"), (hq, "another")) == [(lq, hq)]


def test_the_same_name_goes_before_a_bare_one(tmp_path: Path) -> None:
    assert pairs(tmp_path, ("box", "box2", "box_LR4"), ("box", "box2", "box_HR4")) == [
        ("box", "box"),
        ("box2", "box2"),
        ("box_LR4", "box_HR4"),
    ]


def test_a_number_behind_an_x_may_be_a_part_of_the_name(tmp_path: Path) -> None:
    assert pairs(tmp_path, ("box2_LR", "box3_LR"), ("box2_HR", "box3_HR")) == [
        ("box2_LR", "box2_HR"),
        ("box3_LR", "box3_HR"),
    ]


def test_nothing_is_left_of_no_name() -> None:
    assert bare("x4") == "x4" and bare("_LR4") == "_lr4"


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    lq, hq = folder(tmp_path / "lq", "a", "b"), folder(tmp_path / "hq", "a", "c")
    found = match_pairs(pictures_in(lq), pictures_in(hq))
    assert [p.name for p in found.pairs] == ["a"]
    assert found.unmatched == [f"{hq / 'c.png'} has no LQ picture in {lq}", f"{lq / 'b.png'} has no HQ picture in {hq}"]


@pytest.mark.parametrize(
    ("lq", "hq"), [(("a.png", "a.jpg"), ("a",)), (("a_LR4", "a_x4"), ("a",)), (("a_LR",), ("a_HR", "a_GT"))]
)
def test_two_partners_for_one_are_both_named(tmp_path: Path, lq: tuple[str, ...], hq: tuple[str, ...]) -> None:
    with pytest.raises(PGPError) as e:
        pairs(tmp_path, lq, hq)
    for name in lq if len(lq) > 1 else hq:
        assert name in str(e.value)


def test_two_that_nobody_asks_for_are_no_matter(tmp_path: Path) -> None:
    assert pairs(tmp_path, ("a", "b_LR4", "b_x4"), ("a",)) == [("a", "a")]


def test_nothing_in_common_shows_examples_of_both(tmp_path: Path) -> None:
    with pytest.raises(PGPError, match=r"dog\.png.* against cat\.png"):
        pairs(tmp_path, ("dog",), ("cat",))


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="no picture in the folder"):
        pictures_in(folder(tmp_path / "none"))


def test_two_files_belong_together(tmp_path: Path) -> None:
    where = folder(tmp_path / "all", "small", "large")
    found = match_pairs(pictures_in(where / "small.png"), pictures_in(where / "large.png"))
    assert [p.name for p in found.pairs] == ["large"]


@pytest.mark.parametrize("name", ["a_LR4", "a_HR", "a_LR4_out", "a_upscaled", "a", "a_HR.jpg.png"])
def test_results_are_called_as_either(tmp_path: Path, name: str) -> None:
    found = match_pairs(
        pictures_in(folder(tmp_path / "lq", "a_LR4", "b_LR4")), pictures_in(folder(tmp_path / "hq", "a_HR", "b_HR"))
    ).pairs
    where = folder(tmp_path / "sr", name, "stranger")
    files, lines = match_results(found, pictures_in(where))
    (file,) = files.values()
    assert list(files) == ["a_HR"] and file.name.startswith(name.split(".")[0])
    assert lines == [f"b_HR has no result in {where}", f"{where / 'stranger.png'} is no pair's result"]


def test_a_result_called_as_both_is_refused(tmp_path: Path) -> None:
    found = match_pairs(
        pictures_in(folder(tmp_path / "lq", "a_LR4")), pictures_in(folder(tmp_path / "hq", "a_HR"))
    ).pairs
    with pytest.raises(PGPError, match="both fit a_HR"):
        match_results(found, pictures_in(folder(tmp_path / "sr", "a_LR4", "a_HR")))


def test_folders_of_photographs_are_compared_by_name(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", "a", "b"), folder(tmp_path / "two", "a_out", "c")
    found, rows = match_folders([pictures_in(one), pictures_in(two)])
    assert [p.name for p in found] == ["a", "b", "c"]
    assert [sorted(row) for row in rows] == [["a", "b"], ["a", "c"]]
    assert rows[1]["a"] == two / "a_out.png"


def test_photographs_of_one_stem_are_two(tmp_path: Path) -> None:
    found, rows = match_folders([pictures_in(folder(tmp_path / "one", "a.png", "a.jpg"))])
    assert [p.name for p in found] == ["a.jpg", "a.png"] == sorted(rows[0])
