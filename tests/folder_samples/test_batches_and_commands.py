"""Batches of samples, in workers too; the contact sheet and the commands."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sample_folders import PATCH, levels, save_deep, smooth

from pgp_core.cli import main
from pgp_core.training.degradation import Degradation
from pgp_core.training.samples import FolderSamples, contact_sheet, loader
from pgp_core.training.subject import Batch, Sample


class Numbers:
    """Samples that are their own index."""

    patch = 2

    def __getitem__(self, index: int) -> Sample:
        picture = torch.full((3, 2, 2), float(index))
        return Sample(picture, picture, str(index))

    def summary(self) -> Any:
        raise NotImplementedError


def numbers(**how: Any) -> list[tuple[str, ...]]:
    return [batch.captions for batch in loader(Numbers(), **how)]


def flat(batches: list[tuple[str, ...]]) -> list[int]:
    return [int(n) for batch in batches for n in batch]


def test_batches_follow_the_run() -> None:
    whole = numbers(batch=3, start=0, stop=4, accumulation=2, workers=0)
    assert flat(whole) == list(range(24)) and len(whole) == 8
    assert numbers(batch=3, start=1, stop=4, accumulation=2, workers=0) == whole[2:], "resumed"
    ranks = [numbers(batch=3, start=0, stop=4, rank=r, world=2, workers=0) for r in (0, 1)]
    assert [batch for both in zip(*ranks, strict=True) for batch in both] == whole, "two processes"
    shared = [numbers(batch=1, start=2, stop=4, rank=r, world=3, accumulation=2, workers=0) for r in range(3)]
    for r, n in itertools.product(range(3), range(4)):
        assert shared[r][n] == (str((4 + n) * 3 + r),)
    assert sorted(flat([batch for batches in shared for batch in batches])) == list(range(12, 24))


def test_workers_change_nothing(folder: Path) -> None:
    """Not even with pictures of 16 bits, whose library has left threads here that a forked process waits for."""
    save_deep(folder / "d.png", smooth(150, 150))
    samples = FolderSamples(folder, PATCH, 0)
    expected = [Batch.of([samples[2 * n + i] for i in range(2)]) for n in range(6)]
    for start, workers in (0, 0), (2, 1), (1, 2):
        batches = list(loader(samples, 2, start, 6, workers=workers))
        assert len(batches) == 6 - start
        for ours, theirs in zip(batches, expected[start:], strict=True):
            assert torch.equal(ours.lq, theirs.lq) and torch.equal(ours.hq, theirs.hq)
            assert ours.captions == theirs.captions
            assert torch.equal(ours.original, theirs.original) and torch.equal(ours.corner, theirs.corner)


def test_a_picture_that_breaks_in_a_worker_is_counted_here(folder: Path) -> None:
    samples = FolderSamples(folder, PATCH, 0)
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    assert len(list(loader(samples, 3, 0, 2, workers=2))) == 2
    assert [p.name for p in samples.summary().broken] == ["b.png"]


def test_the_contact_sheet_shows_the_samples(folder: Path) -> None:
    samples = FolderSamples(folder, PATCH, 0)
    page = np.asarray(contact_sheet(samples, 5, start=2))
    for i in range(5):
        pair = np.concatenate([levels(samples[2 + i].lq), levels(samples[2 + i].hq)], 1)
        found = [
            (y, x)
            for y in range(page.shape[0] - PATCH + 1)
            for x in range(0, page.shape[1] - 2 * PATCH + 1)
            if np.array_equal(page[y, x : x + 8], pair[0, :8])
            and np.array_equal(page[y : y + PATCH, x : x + 2 * PATCH], pair)
        ]
        assert len(found) == 1
    rows, big = contact_sheet(samples, 40), FolderSamples(folder, 128, 0)
    assert rows.width <= 2400 and contact_sheet(big, 1).width == 256


def test_the_sheet_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (20, 20)).save(folder / "tiny.png")
    out = tmp_path / "out" / "sheet.jpg"
    words = ["train", "sheet", str(folder), "-o", str(out), "--patch", "64", "--count", "3", "--json"]
    assert main(words) == 0
    said = capsys.readouterr()
    data = json.loads(said.out)
    assert data["pictures"] == 3 and data["captions"] == 2 and data["small"] == [str(folder / "tiny.png")]
    assert "tiny.png" in said.err
    with Image.open(out) as page:
        assert page.format == "JPEG" and page.width == 3 * (2 * 64 + 6) - 6
    assert main([*words, "--degradation", "nano", "--enlarge", "faithdiff", "--seed", "3"]) == 0
    capsys.readouterr()
    for more, wrong in (
        (["-o", str(tmp_path / "sheet.txt")], "written as"),
        (["--count", "101"], "1 to"),
        (["--patch", "500"], "no picture"),
    ):
        assert main([*words, *more]) == 1
        error = capsys.readouterr().err
        assert wrong in error and error.count("\n") == 1
    for more in (["--seed", "-1"], ["--count", "0"]):
        with pytest.raises(SystemExit) as stop:
            main([*words, *more])
        assert stop.value.code == 2 and "0" in capsys.readouterr().err


def test_the_speed_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "data", "--folder", str(folder), "--patch", "64", "--count", "4", "--json"]
    assert main(words) == 0
    said = capsys.readouterr()
    data = json.loads(said.out)
    assert data["crops"] == 4 and data["crops_per_second"] == pytest.approx(4 / data["seconds"])
    assert "crops of 64x64 a second" in said.err
    with pytest.raises(SystemExit) as stop:
        main([*words, "--count", "0"])
    assert stop.value.code == 2


def test_nanos_degradation_serves_too(folder: Path) -> None:
    sample = FolderSamples(folder, PATCH, 0, Degradation(noise=(0, 0), blur=(0, 0.1), jpeg=(95, 95)))[0]
    assert float((sample.lq - sample.hq).mean(0).abs().mean()) < 0.05
