"""One run of ``upscale`` over some 100 odd files: all are accounted for, the good ones are done and look as they
should."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_pictures import Odd, make
from PIL import Image, ImageOps

from pgp_core.cli import main

#: Nano is no identity: so many levels of 255 are the mean over a picture off at most; a picture that is turned, or
#: read as another, is off by more than thirty.
LEVELS = 12


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Odd]]:
    folder = tmp_path_factory.mktemp("odd") / "pictures"
    return folder, make(folder)


def near(path: Path, odd: Odd) -> str:
    """What is wrong with a result, "" if nothing is."""
    assert odd.shows is not None
    height, width = odd.shows.shape[:2]
    # Of a PNG's header.
    if (bits := path.read_bytes()[24]) != odd.bits:
        return f"{bits} bits"
    with Image.open(path) as file:
        # As viewers show it.
        image = ImageOps.exif_transpose(file)
        if image.size != (2 * width, 2 * height):
            return f"{image.size}"
        grey = image.mode.startswith("I")
        levels = np.asarray(image.convert("RGB") if not grey else image, float)
    levels = np.repeat(levels[..., None] / 257, 3, -1) if grey else levels
    small = levels.reshape(height, 2, width, 2, 3).mean((1, 3))
    off = np.abs(small - odd.shows).mean()
    return "" if off <= LEVELS else f"off by {off:.1f} levels"


def test_every_odd_file_is_accounted_for(
    odd: tuple[Path, list[Odd]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, files = odd
    out = tmp_path / "out"
    assert len(files) >= 60
    assert main(["upscale", str(folder), "-o", str(out), "--scale", "2", "--json"]) == 1
    said = capfd.readouterr()
    lines = said.err.splitlines()
    assert "Traceback" not in said.err and not set(said.err) & {chr(i) for i in (*range(10), *range(11, 32), 127)}
    good = sum(one.shows is not None for one in files)
    errors = [line for line in lines if line.startswith("pgp-diffsr: error: ")]
    done = [
        line
        for line in lines
        if re.fullmatch(r".*  \d+ x \d+, \d+\.\d s, (\d+\.\d dB faithful|the same as its input)", line)
    ]
    rest = [line for line in lines if line not in (*errors, *done)]
    assert (len(errors), len(done)) == (len(files) - good, good)
    assert rest[-1] == f"pgp-diffsr: {good} of {len(files)} pictures done, {len(files) - good} failed"
    # What is left are notes on a picture.
    assert not [line for line in rest[:-1] if not re.match(r"pgp-diffsr: \S*/(pictures|out)/[^:]+: \S", line)]
    rows = {}
    for line in said.out.splitlines():
        row = json.loads(line)
        assert json.dumps(row).isascii() and "\\ud" not in row["input"]
        name = os.fsdecode(base64.b64decode(row["input_base64"])) if "input_base64" in row else row["input"]
        assert name not in rows
        rows[name] = row
    wrong = {}
    for one in files:
        row: dict[str, Any] = rows.pop(str(folder / one.name), {})
        if one.shows is None:
            if not row.get("error") or one.why not in row["error"]:
                wrong[one.name] = f"{row} is no error that says {one.why!r}"
            continue
        if "error" in row or not row:
            wrong[one.name] = row.get("error", "nothing is said of it")
            continue
        result = Path(os.fsdecode(base64.b64decode(row["output_base64"])) if "output_base64" in row else row["output"])
        if one.result is not None and result.name != f"{one.result}.png":
            wrong[one.name] = f"the result is called {result.name}"
        elif problem := near(result, one):
            wrong[one.name] = problem
    assert not rows, "of files that are nobody's pictures"
    assert not wrong, "\n".join(f"{name!r}: {problem}" for name, problem in wrong.items())
    assert len(list(out.iterdir())) == good, "nothing else is left there"
