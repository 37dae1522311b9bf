"""Samples: crops of a folder's pictures, of every kind, and painted ones."""

from __future__ import annotations

import itertools
import json
import logging
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sample_folders import PATCH, levels, save_deep, smooth

from pgp_core.errors import PGPError
from pgp_core.training.samples import (
    FAITHDIFF_ENLARGEMENTS,
    FolderSamples,
    SyntheticSamples,
    decoding,
    loader,
    scanning,
)
from pgp_core.training.samples.cutting import draw_span
from pgp_core.training.subject import Sample


class Box:
    """A degradation that can be worked out: means of 4x4 pixels."""

    scale = 4

    def draw(self, hq: Image.Image, rng: np.random.Generator) -> Image.Image:
        return hq.reduce(4)


def same(a: Sample, b: Sample) -> bool:
    return (
        torch.equal(a.lq, b.lq)
        and torch.equal(a.hq, b.hq)
        and (a.caption, a.original, a.corner) == (b.caption, b.original, b.corner)
    )


# -- crops -------------------------------------------------------------------------------------------------


def test_a_sample_says_where_it_was_cut(folder: Path) -> None:
    """HQ is the picture, or its mirror image, at the corner; so for every picture, with its caption."""
    pictures = {"eine Brücke im Nebel": "a.png", "": "b.png", "third": "more/c.png"}
    samples = FolderSamples(folder, PATCH, seed=1)
    seen = set()
    for i in range(24):
        sample = samples[i]
        whole = np.asarray(Image.open(folder / pictures[sample.caption]))
        assert sample.original == whole.shape[:2]
        assert sample.lq.shape == sample.hq.shape == (3, PATCH, PATCH)
        assert sample.lq.dtype == sample.hq.dtype == torch.float32
        assert sample.lq.min() >= 0 and sample.lq.max() <= 1
        top, left = sample.corner
        for mirrored, picture in (False, whole), (True, whole[:, ::-1]):
            if np.array_equal(levels(sample.hq), picture[top : top + PATCH, left : left + PATCH]):
                seen.add((sample.caption, mirrored))
    assert len(seen) == 6
    unmirrored = FolderSamples(folder, PATCH, seed=1, flip=False)
    whole = np.asarray(Image.open(folder / "b.png"))
    for sample in filter(lambda s: not s.caption, (unmirrored[i] for i in range(12))):
        top, left = sample.corner
        assert np.array_equal(levels(sample.hq), whole[top : top + PATCH, left : left + PATCH])


@pytest.mark.parametrize("flip", [False, True])
def test_lq_lies_on_hq(folder: Path, flip: bool) -> None:
    """Canvas pixels are the means of HQ's, so crop, margin, mirroring and enlargement agree."""
    samples = FolderSamples(folder, PATCH, 0, Box(), enlarge=("nearest",), flip=flip)
    for i in range(12):
        sample = samples[i]
        means = levels(sample.hq).reshape(16, 4, 16, 4, 3).mean((1, 3))
        np.testing.assert_allclose(levels(sample.lq)[::4, ::4], means, atol=0.51)
        assert torch.equal(sample.lq[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2), sample.lq)


def test_the_second_order_does_not_shift(folder: Path) -> None:
    samples = FolderSamples(folder, PATCH, 0)
    errors = np.zeros((3, 3))
    for i in range(60):
        lq, hq = samples[i].lq.mean(0), samples[i].hq.mean(0)
        for y, x in itertools.product(range(3), repeat=2):
            moved = hq[2 * y : PATCH - 4 + 2 * y, 2 * x : PATCH - 4 + 2 * x]
            errors[y, x] += float((lq[2:-2, 2:-2] - moved).square().mean())
    assert errors.argmin() == 4


@pytest.mark.parametrize("names", [("lanczos",), FAITHDIFF_ENLARGEMENTS])
def test_the_canvas_is_enlarged_as_asked(tmp_path: Path, names: tuple[str, ...]) -> None:
    """A picture of a crop's size has no margin, so LQ is known."""
    picture = Image.fromarray(smooth(PATCH, PATCH))
    picture.save(tmp_path / "a.png")
    small = picture.reduce(4)
    expected = {
        name: np.asarray(small.resize((PATCH, PATCH), getattr(Image.Resampling, name.upper()))) for name in names
    }
    samples = FolderSamples(tmp_path, PATCH, 0, Box(), enlarge=names, flip=False)
    counts = dict.fromkeys(names, 0)
    for i in range(120):
        sample = samples[i]
        assert sample.corner == (0, 0)
        for name, canvas in expected.items():
            counts[name] += np.array_equal(levels(sample.lq), canvas)
    assert sum(counts.values()) == 120
    assert min(counts.values()) > 0.6 * 120 / len(names)


def test_the_border_of_a_crop_is_no_border_of_the_degradation(tmp_path: Path) -> None:
    """Beyond the crop the picture goes on: the canvas is the middle of the whole picture's, but for the margin's
    own end."""
    whole = smooth(200, 200)
    Image.fromarray(whole).save(tmp_path / "a.png")
    samples = FolderSamples(tmp_path, PATCH, 0, Box(), flip=False)
    for i in range(20):
        sample = samples[i]
        top, left = sample.corner
        shifted = Image.fromarray(whole[top % 4 : top % 4 + 196, left % 4 : left % 4 + 196]).reduce(4)
        canvas = np.asarray(shifted.resize((196, 196), Image.Resampling.LANCZOS))
        y, x = top - top % 4, left - left % 4
        np.testing.assert_array_equal(levels(sample.lq), canvas[y : y + PATCH, x : x + PATCH])


@given(st.integers(64, 400), st.integers(0, 2**32))
def test_a_span_fits(size: int, seed: int) -> None:
    span = draw_span(np.random.default_rng(seed), size, 64, 4)
    assert span.start >= 0 and span.start + span.length <= size
    assert span.length % 4 == span.before % 4 == 0
    after = span.length - 64 - span.before
    assert min(span.before, after) >= min(16, (size - 64) // 8 * 4)
    assert span.before + after <= 60


def test_jpegs_grid_starts_anywhere() -> None:
    spans = [draw_span(np.random.default_rng(i), 300, 64, 4) for i in range(400)]
    assert {s.before // 4 % 8 for s in spans} == set(range(8))
    assert min(s.start + s.before for s in spans) <= 20 and max(s.start + s.before + 64 for s in spans) >= 280


def test_a_broken_picture_counts_for_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that only turns out broken when decoded: named once, and the others are drawn as often as each other."""
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    (folder / "no.jpg").write_text("this is no picture")
    samples = FolderSamples(folder, PATCH, 0)
    before = samples.summary()
    assert before.pictures == 3 and before.captions == 2 and [p.name for p in before.broken] == ["no.jpg"]
    with caplog.at_level(logging.WARNING):
        drawn = [samples[i] for i in range(60)]
    assert [r.getMessage().count("b.png") for r in caplog.records] == [1]
    assert {s.caption for s in drawn} == {"eine Brücke im Nebel", "third"}
    assert min(sum(s.caption == c for s in drawn) for c in ("third", "eine Brücke im Nebel")) >= 20
    after = samples.summary()
    assert after.pictures == 2 and after.captions == 2 and [p.name for p in after.broken] == ["no.jpg", "b.png"]
    assert any("broken" in line and "b.png" in line and "2 in all" in line for line in after.lines())
    again = FolderSamples(folder, PATCH, 0)
    assert all(same(again[i], drawn[i]) for i in (59, 3, 21, 4, 5)), "in any order"


def test_what_is_no_file_is_broken_and_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")
    (folder / "empty.png").write_bytes(b"")
    (folder / "up").symlink_to(folder)
    found = FolderSamples(folder, PATCH, 0).summary()
    assert found.pictures == 3
    assert sorted(p.name for p in found.broken) == ["circle.jpg", "empty.png", "nowhere.jpg", "pipe.png"]
    os.mkfifo(folder / "b.txt")
    with pytest.raises(PGPError, match=r"the caption .*b\.txt is no file"):
        FolderSamples(folder, PATCH, 0)


@pytest.mark.parametrize("error", [struct.error("unpack"), TypeError("odd"), RecursionError(), MemoryError()])
def test_whatever_a_reader_raises_is_that_pictures_error(
    error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every reader: headers when the folder is looked through, pixels when a crop is cut."""

    def breaking(reader: Callable[..., Any]) -> Callable[..., Any]:
        def read(path: Any, *args: Any, **kwargs: Any) -> Any:
            if Path(path).name == "b.png":
                raise error
            return reader(path, *args, **kwargs)

        return read

    before = FolderSamples(folder, PATCH, 0)
    for module in (scanning, decoding):
        monkeypatch.setattr(module, "open_picture", breaking(module.open_picture))
    monkeypatch.setattr(Image, "open", breaking(Image.open))
    assert [p.name for p in FolderSamples(folder, PATCH, 0).summary().broken] == ["b.png"]
    assert {before[i].caption for i in range(12)} == {"eine Brücke im Nebel", "third"}
    assert [p.name for p in before.summary().broken] == ["b.png"]
    for path in ("a.png", "more/c.png"):
        (folder / path).write_bytes(b"")
    with pytest.raises(PGPError, match=r"no picture in the folder .* can be used; broken: .*3 in all"):
        FolderSamples(folder, PATCH, 0)


def test_every_picture_comes_once_an_epoch(folder: Path) -> None:
    samples = FolderSamples(folder, PATCH, 0)
    captions = [samples[i].caption for i in range(36)]
    epochs = [tuple(captions[i : i + 3]) for i in range(0, 36, 3)]
    assert all(len(set(epoch)) == 3 for epoch in epochs)
    assert len(set(epochs)) > 3
    pairs = FolderSamples(folder, PATCH, 0, crops_per_picture=2)
    assert [pairs[2 * i].caption for i in range(12)] == [pairs[2 * i + 1].caption for i in range(12)] == captions[:12]
    assert not torch.equal(pairs[0].hq, pairs[1].hq)


def test_a_sample_depends_on_seed_and_index_alone(folder: Path) -> None:
    one, two, other = (FolderSamples(folder, PATCH, seed) for seed in (3, 3, 4))
    few = FolderSamples(folder, PATCH, 3, keep=0)
    order = [7, 0, 25, 8, 7, 10**9]
    assert all(same(one[i], two[i]) for i in order)
    assert all(same(few[i], two[i]) for i in reversed(order))
    assert not any(same(one[i], other[i]) for i in order)
    assert not same(one[7], one[8])


# -- kinds of pictures -------------------------------------------------------------------------------------


def save_rotated(path: Path, pixels: np.ndarray) -> np.ndarray:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(path.with_suffix(".jpg"), quality=100, subsampling=0, exif=exif)
    return pixels


def save_transparent(path: Path, pixels: np.ndarray) -> np.ndarray:
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[:, :80] = 0
    Image.fromarray(np.dstack([pixels, alpha])).save(path)
    return np.where(alpha[..., None] > 0, pixels, 255).astype(np.uint8)


def save_grey(path: Path, pixels: np.ndarray) -> np.ndarray:
    Image.fromarray(pixels[..., 0]).save(path)
    return np.repeat(pixels[..., :1], 3, -1)


def save_deep_grey(path: Path, pixels: np.ndarray) -> np.ndarray:
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path)
    return np.repeat(pixels[..., :1], 3, -1)


def save_palette(path: Path, pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(pixels).quantize(32)
    image.save(path)
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "save",
    [save_rotated, save_transparent, save_grey, save_deep_grey, save_deep, save_palette],
    ids=lambda f: f.__name__,
)
def test_kinds_of_pictures(tmp_path: Path, save: Any) -> None:
    whole = save(tmp_path / "a.png", smooth(120, 160))
    sample = FolderSamples(tmp_path, 96, 0, flip=False)[0]
    assert sample.original == (120, 160)
    top, left = sample.corner
    difference = np.abs(levels(sample.hq).astype(int) - whole[top : top + 96, left : left + 96])
    assert difference.max() <= (12 if save is save_rotated else 0)


# -- bad folders -------------------------------------------------------------------------------------------


def refusal(folder: Path, **more: Any) -> str:
    with pytest.raises(PGPError) as raised:
        FolderSamples(folder, PATCH, 0, **more)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_bad_folders(tmp_path: Path) -> None:
    assert "there is no folder" in refusal(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "is no folder" in refusal(tmp_path / "file")
    empty = tmp_path / "empty"
    (empty / "below").mkdir(parents=True)
    (empty / "readme.txt").touch()
    assert "there is no picture in the folder" in refusal(empty)
    Image.new("RGB", (PATCH - 1, 300)).save(empty / "thin.png")
    (empty / "below" / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    text = refusal(empty)
    assert "thin.png" in text and "64x64" in text and "broken" in text and "bad.jpg" in text
    Image.new("RGB", (PATCH, 300)).save(empty / "fits.png")
    summary = FolderSamples(empty, PATCH, 0).summary()
    assert summary.pictures == 1 and len(summary.small) == len(summary.broken) == 1
    assert len(summary.lines()) == 3
    assert json.loads(json.dumps(summary.to_json()))["small"] == [str(empty / "thin.png")]


def test_a_caption_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "b.txt").write_bytes("Brücke".encode("latin-1"))
    text = refusal(folder)
    assert str(folder / "b.txt") in text and "UTF-8" in text and "remove it" in text


def test_hidden_files_and_links_in_a_circle(folder: Path) -> None:
    (folder / "._a.png").write_bytes(b"AppleDouble")
    (folder / ".trash").mkdir()
    Image.new("RGB", (200, 200)).save(folder / ".trash" / "old.png")
    (folder / "more" / "up").symlink_to(folder, target_is_directory=True)
    assert len(FolderSamples(folder, PATCH, 0).found.pictures) == 3


def test_bad_parameters(folder: Path) -> None:
    for patch in 62, 16:
        with pytest.raises(PGPError, match="must be a multiple of 4, 32 or more"):
            FolderSamples(folder, patch, 0)
    assert "enlarge must name some of lanczos" in refusal(folder, enlarge=("cubic",))
    assert "crops_per_picture" in refusal(folder, crops_per_picture=0)


def test_a_folder_that_breaks_altogether(folder: Path) -> None:
    samples = FolderSamples(folder, PATCH, 0)
    for path in samples.found.pictures:
        path.write_bytes(b"gone")
    with pytest.raises(PGPError, match="pictures in a row cannot be read"):
        samples[0]
    for workers in 0, 1:
        with pytest.raises(PGPError) as raised:
            next(iter(loader(samples, 2, 0, 1, workers=workers)))
        assert str(raised.value).startswith("20 pictures in a row"), "no traceback of a worker"


# -- painted pictures --------------------------------------------------------------------------------------


def test_synthetic_samples() -> None:
    pictures = np.stack([smooth(96, 96, seed) for seed in range(3)])
    samples, again = (SyntheticSamples(pictures, PATCH, 5) for _ in range(2))
    turned = set()
    for i in range(80):
        sample = samples[i]
        assert sample.caption == "" and sample.original == (96, 96)
        top, left = sample.corner
        for n, turns, mirrored in itertools.product(range(3), range(4), (False, True)):
            whole = np.rot90(pictures[n], turns)
            whole = whole[:, ::-1] if mirrored else whole
            if np.array_equal(levels(sample.hq), whole[top : top + PATCH, left : left + PATCH]):
                turned.add((n, turns, mirrored))
    assert len(turned) > 20, "of 24"
    assert all(same(samples[i], again[i]) for i in (5, 0, 7))
    # Nano's degradation is mild; chroma suffers most, from JPEG.
    assert float((samples[0].lq - samples[0].hq).mean(0).abs().mean()) < 0.05
    assert samples.summary().pictures == 3
    with pytest.raises(PGPError, match="too small"):
        SyntheticSamples(pictures, 128, 0)


def test_mapped_pictures_are_not_copied_to_workers(tmp_path: Path) -> None:
    whole = np.stack([smooth(80, 80, seed) for seed in range(4)])
    np.save(tmp_path / "pictures.npy", whole)
    on_disk = np.load(tmp_path / "pictures.npy", mmap_mode="r")
    for pictures, expected in ((on_disk, whole), (on_disk[1:3], whole[1:3]), (on_disk[1:][1:], whole[2:])):
        samples = SyntheticSamples(pictures, PATCH, 0)
        sent = pickle.dumps(samples)
        assert len(sent) < 4000
        again = pickle.loads(sent)  # noqa: S301 - what the line above made
        np.testing.assert_array_equal(again.pictures, expected)
        assert same(again[3], samples[3])
    in_memory = pickle.loads(pickle.dumps(SyntheticSamples(whole, PATCH, 0)))  # noqa: S301
    np.testing.assert_array_equal(in_memory.pictures, whole)
