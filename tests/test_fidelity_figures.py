"""What the documentation says of faithfulness and the dial is what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean

import pytest

ROOT = Path(__file__).parents[1]
DATA = json.loads((ROOT / "docs" / "reproduction" / "fidelity-dial.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "pictures.md").read_text(encoding="utf-8").split("## How faithful the result is\n")[1]
#: Rows of the first table, as the file calls them.
ROWS = {
    "only enlarged": "enlarged",
    "nano, one step": "nano",
    "the real photograph": "hq",
    "OSEDiff, as published": "osediff",
}


def means(row: str, position: str) -> list[float]:
    pictures = DATA["rows"][row]
    assert len(pictures) == 100
    return [fmean(column) for column in zip(*(p[position] for p in pictures.values()), strict=True)]


def numbers(cells: str) -> list[str]:
    return re.findall(r"[\d.]+", cells)


def agree(said: list[str], measured: list[float]) -> None:
    for text, value in zip(said, measured, strict=True):
        # To the last digit that is shown, and what the file's own rounding takes.
        assert float(text) == pytest.approx(value, abs=0.51 * 10 ** -len(text.partition(".")[2]) + 1e-4)


@pytest.mark.parametrize("name", ROWS)
def test_how_faithful_what_is(name: str) -> None:
    (cells,) = re.findall(rf"^\| {name} \| (.+) \|$", PAGE, re.M)
    agree(numbers(cells), means(ROWS[name], "0")[-2:])


def test_what_the_dial_does() -> None:
    rows = re.findall(r"^\| (?:\*\*)?(off|\d+)(?:\*\*)? \| (.+) \|$", PAGE, re.M)
    assert [position for position, _ in rows] == ["off", "16", "8", "4", "3", "2", "1"]
    for position, cells in rows:
        agree(numbers(cells), means("osediff", position.replace("off", "0")))
    off, on = means("osediff", "0"), means("osediff", "4")
    gained, changed = on[0] - off[0], on[1] - off[1]
    assert gained > 0.7 and changed <= 0
    assert f"{gained:.2f} dB gained" in PAGE
    assert f"gains {means('nano', '4')[0] - means('nano', '0')[0]:.1f} dB at 4" in PAGE
