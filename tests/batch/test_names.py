"""What results are called, which are there already, and what is a result itself."""

from __future__ import annotations

import itertools
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from odd_pictures.exif import camera
from PIL import Image, ImageCms

from pgp_core.batch.jobs import Jobs, one_job, plan_jobs
from pgp_core.batch.marks import marked, origin_of, said_by
from pgp_core.errors import PictureError
from pgp_core.images.picture import Metadata, Picture
from pgp_core.images.writing import save_picture


def source(path: Path, level: int = 0) -> Path:
    """A file with bytes of its own: names do not depend on more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"picture" + bytes([level]))
    return path


def result(of: Path, at: Path) -> Path:
    """As the program writes it."""
    at.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((2, 2, 3), np.uint8)
    save_picture(Picture(pixels, metadata=marked(Metadata(), origin_of(of))), at)
    return at


def named(jobs: Jobs) -> dict[str, str]:
    assert not jobs.failed
    return {str(j.source): j.target.name for j in (*jobs.todo, *jobs.done)}


def test_plain_names_stay(tmp_path: Path) -> None:
    names = ("b.jpg", "c.d.jpg", "noending", "UPPER.JPG")
    inputs = [source(tmp_path / "a" / name) for name in names]
    jobs = plan_jobs(inputs, tmp_path, ".png", False)
    assert [j.target for j in jobs.todo] == [tmp_path / n for n in ("b.png", "c.d.png", "noending.png", "UPPER.png")]


def test_twins_have_the_same_names_whichever_are_meant(tmp_path: Path) -> None:
    names = ("b.jpg", "b.png", "b.webp", "b.jpg.png", "B.JPG")
    inputs = [source(tmp_path / "a" / name) for name in names]
    whole = named(plan_jobs(inputs, tmp_path, ".png", False))
    assert len({n.casefold() for n in whole.values()}) == 5
    assert {Path(k).name: v for k, v in whole.items()} | {"b.jpg": "", "B.JPG": ""} == {
        "b.png": "b.png", "b.webp": "b.webp.png", "b.jpg.png": "b.jpg.png", "b.jpg": "", "B.JPG": "",
    }  # fmt: skip
    for some in itertools.permutations(inputs, 2):
        assert named(plan_jobs(some, tmp_path, ".png", False)).items() <= whole.items()
    as_jpeg = named(plan_jobs(inputs, tmp_path, ".jpg", False))
    assert as_jpeg[str(inputs[1])] == "b.png.jpg"


def test_names_that_some_file_system_takes_for_one(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    inputs = [source(tmp_path / "a" / f"{stem}.png") for stem in (*forms, "Straße", "STRASSE", "i", "I")]
    targets = named(plan_jobs(inputs, tmp_path, ".png", False)).values()
    seen = {unicodedata.normalize("NFD", unicodedata.normalize("NFC", t).casefold()) for t in targets}
    assert len(seen) == len(inputs)


def test_the_same_name_in_two_folders(tmp_path: Path) -> None:
    inputs = [source(tmp_path / where / "b.jpg", i) for i, where in enumerate(("x", "y", "z/x"))]
    out = tmp_path / "out"
    first = named(plan_jobs(inputs, out, ".png", False))
    assert list(first.values())[:2] == ["b.png", "y_b.png"] and len(set(first.values())) == 3
    # Done already, they are found again in any order and number, and nobody is taken for another.
    for path in inputs:
        result(path, out / first[str(path)])
    for some in itertools.chain(itertools.permutations(inputs), ([i] for i in inputs)):
        jobs = plan_jobs(list(some), out, ".png", False)
        assert not jobs.todo and named(jobs).items() <= first.items()
    other = source(tmp_path / "new" / "b.jpg", 9)
    assert named(plan_jobs([other], out, ".png", False)) == {str(other): "new_b.png"}
    # Whoever says so gets the name all the same.
    assert named(plan_jobs([other], out, ".png", True)) == {str(other): "b.png"}


def test_what_is_there_is_done_changed_or_unsaid(tmp_path: Path) -> None:
    a, b, c = (source(tmp_path / "in" / f"{name}.png") for name in "abc")
    out = tmp_path / "out"
    result(a, out / "a.png")
    result(b, out / "b.png")
    source(b, 7)
    (out / "c.png").write_bytes(b"anything")
    jobs = plan_jobs([a, b, c], out, ".png", False)
    assert [j.source for j in jobs.done] == [a, b, c] and not jobs.todo
    assert [j.source for j in jobs.changed] == [b] and jobs.unsaid == [out / "c.png"]
    again = plan_jobs([a, b, c], out, ".png", True)
    assert [j.target.name for j in again.todo] == ["a.png", "b.png", "c.png"]


def test_beside_the_pictures(tmp_path: Path) -> None:
    """Twice is as once; a file of the user's that is called as a result is neither enlarged nor replaced, and said."""
    inputs = [source(tmp_path / name) for name in ("a.jpg", "a.png", "c.png")]
    jobs = plan_jobs(inputs, tmp_path, ".png", False)
    first = named(jobs)
    assert set(first.values()) == {"a.jpg_upscaled.png", "a_upscaled.png", "c_upscaled.png"}
    made = [result(j.source, j.target) for j in jobs.todo]
    again = plan_jobs([*inputs, *made], tmp_path, ".png", False)
    assert not again.todo and named(again) == first and again.results == made and not again.maybe_results
    made[2].write_bytes(b"of the user's")
    again = plan_jobs([*inputs, *made], tmp_path, ".png", True)
    assert [j.source for j in again.todo] == inputs[:2]
    assert again.maybe_results == [made[2]]
    ((failed, error),) = again.failed
    assert failed == inputs[2] and "move it away" in str(error)
    # Without its picture it is one like others.
    inputs[2].unlink()
    alone = plan_jobs([made[2]], tmp_path, ".png", False)
    assert [j.target.name for j in alone.todo] == ["c_upscaled_upscaled.png"]
    # A result that is meant by name, alone, is enlarged.
    assert [j.source for j in plan_jobs([made[0]], tmp_path, ".png", False, lone=True).todo] == [made[0]]


def test_no_result_takes_the_place_of_an_input(tmp_path: Path) -> None:
    """One of the inputs lies in the folder for results and has the name of another's result."""
    far, near = source(tmp_path / "a" / "x.png", 1), source(tmp_path / "b" / "x.png", 2)
    for inputs in ([far, near], [near, far]):
        for overwrite in (False, True):
            jobs = plan_jobs(inputs, tmp_path / "b", ".png", overwrite)
            assert named(jobs) == {str(far): "a_x.png", str(near): "x_upscaled.png"}
            assert len(jobs.todo) == 2
    with pytest.raises(PictureError, match="overwritten by its own result"):
        one_job(near, tmp_path / "a" / ".." / "b" / "x.png", True)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    assert named(plan_jobs([near], tmp_path / "link", ".png", True, lone=True)) == {str(near): "x_upscaled.png"}


def test_a_file_that_is_named(tmp_path: Path) -> None:
    a, b = source(tmp_path / "a.png", 1), source(tmp_path / "b.png", 2)
    target = tmp_path / "r.png"
    assert one_job(a, target, False).todo[0].target == target
    result(a, target)
    assert one_job(a, target, False).done[0].target == target
    with pytest.raises(PictureError, match="made of another picture: --overwrite"):
        one_job(b, target, False)
    assert one_job(b, target, True).todo[0].target == target


def test_names_that_are_too_long(tmp_path: Path) -> None:
    stem = "é" * 124 + "xyz"
    inputs = [source(tmp_path / f"{stem}.png"), source(tmp_path / f"{stem[:-1]}.png")]
    for overwrite in (False, True):
        targets = [j.target for j in plan_jobs(inputs, tmp_path, ".png", overwrite).todo]
        assert len({t.name for t in targets}) == 2
        for target in targets:
            assert len(os.fsencode(target.name)) <= 255 and target.name.endswith("_upscaled.png")
            target.write_bytes(b"")
            target.unlink()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_result_says_of_what_it_was_made(suffix: str, deep: bool, tmp_path: Path) -> None:
    """And a picture that says nothing of its own does not lose anything by it."""
    of, at = source(tmp_path / "a.png"), tmp_path / f"r{suffix}"
    pixels = np.full((3, 5, 3), 200, np.uint16 if deep else np.uint8)
    text = {"prompt": "much " * 60_000}
    kept = Metadata(
        exif=camera()[6:], icc=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), text=text
    )
    for metadata in (Metadata(), kept):
        save_picture(Picture(pixels, metadata=marked(metadata, origin_of(of))), at)
        assert said_by(at) == origin_of(of)
    with Image.open(at) as image:
        assert image.getexif()[0x010F] == "Maker" and image.info["icc_profile"] == kept.icc
    assert said_by(of) is None and said_by(tmp_path / "gone.png") is None
    os.mkfifo(tmp_path / "pipe.png")
    assert said_by(tmp_path / "pipe.png") is None


def test_everything_else_in_exif_stays() -> None:
    """Read by Pillow: all tags, those of the Exif directory, GPS and the maker's note are as they were."""

    def read(block: bytes | None) -> list[dict[int, object]]:
        exif = Image.Exif()
        assert block is not None
        exif.load(block)
        first = {k: v for k, v in exif.items() if k not in (0x8769, 0x8825)}
        return [first, dict(exif.get_ifd(0x8769)), dict(exif.get_ifd(0x8825))]

    block = camera(6)[6:]
    origin = origin_of(Path(__file__))
    changed = marked(Metadata(exif=block), origin).exif
    before, after = read(block), read(changed)
    assert after[0].pop(0x000B) == str(origin)
    assert after == before and before[1][0x927C] and before[2]
    assert read(marked(Metadata(exif=changed), origin).exif) == read(changed)
    large = block + b"\0" * (65_500 - len(block))
    assert marked(Metadata(exif=large), origin).exif == large, "a JPEG would lose it all"
    for nonsense in (b"", b"nonsense", block[:7], block[:20]):
        assert marked(Metadata(exif=nonsense), origin).exif in (nonsense, marked(Metadata(), origin).exif)
