"""The command line's picture is the library's, for every family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from restorer_kit import Variant, command, photo, read

from pgp_core.cli import main
from pgp_core.images.sizes import Size
from pgp_core.restorers.restorer import Restorer
from pgp_core.restorers.upscale import upscale
from pgp_core.sampling.options import SampleOptions


def test_the_command_line_s_picture_is_the_library_s(
    made: Variant,
    restorer: Restorer,
    options: SampleOptions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = photo(tmp_path / "photo.png", 17, 23)
    assert main(command(made, source, tmp_path / "out", 2.0)) == 0
    row = json.loads(capsys.readouterr().out)
    expected = upscale(restorer, read(source), Size(scale=2.0), options)
    result = read(Path(row["output"]))
    assert result.shape == expected.shape == (1, 3, 34, 46)
    assert (row["width"], row["height"]) == (46, 34)
    # Rounded to the nearest of 255 levels.
    assert float((result - expected).abs().max()) <= 0.501 / 255
    assert (row["steps"], row["model"]) == (options.steps if not restorer.recipe.one_step else 1, restorer.name)


def test_a_damaged_file_writes_nothing(made: Variant, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the UNet: its first half."""
    source = photo(tmp_path / "photo.png", 17, 23)
    given = made.copied(tmp_path / "copy")
    path = given.model or given.base
    assert path is not None
    content = made.unet.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    assert main(command(made, source, tmp_path / "out", 2.0, given)) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("pgp-diffsr: error: ") and path.name in said[-1]
    assert not list((tmp_path / "out").glob("*"))
