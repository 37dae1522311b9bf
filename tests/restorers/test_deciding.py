"""One function decides what a setting is, and everybody gets its answer: family, then file, then user."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given as examples
from hypothesis import strategies as st
from perfect import Perfect
from restorer_kit import photo

from pgp_core.choices import COLOR_FIXES
from pgp_core.cli import main, model_options
from pgp_core.errors import PGPError
from pgp_core.restorers.recipe import Recipe, decide
from pgp_core.sampling.options import SampleOptions
from pgp_core.sampling.rules import RULES, SPACINGS, STARTS

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "steps": st.integers(1, 1000),
    "cfg": st.floats(0, 100),
    "start": st.sampled_from(STARTS),
    "spacing": st.none() | st.sampled_from(SPACINGS),
    "denoise": st.floats(0.01, 1),
    "rule": st.sampled_from(RULES),
    "timestep": st.integers(0, 999),
    "tile": st.integers(256, 4096),
    "overlap": st.integers(0, 255),
    "color_fix": st.sampled_from(COLOR_FIXES),
    "fidelity": st.floats(0, 16384),
    "natural": st.floats(0, 1),
    "prompt": st.text(max_size=5),
    "negative_prompt": st.text(max_size=5),
}
#: What a file or a user says: some settings, None for those that they do not.
SAID = st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in VALUES.items()})
RECIPES = st.builds(Recipe, **VALUES)


def test_every_setting_is_tried() -> None:
    assert set(VALUES) == {f.name for f in fields(Recipe)}


@examples(RECIPES, SAID, SAID)
def test_the_user_goes_before_the_file_and_that_before_the_family(
    family: Recipe, file: dict[str, Any], user: dict[str, Any]
) -> None:
    decided = decide(family, file, user)
    for name in VALUES:
        answers = [a for a in (user.get(name), file.get(name), getattr(family, name)) if a is not None]
        # What is 0, or empty, is an answer too.
        expected = answers[0] if answers else None
        assert getattr(decided, name) == expected, name
    assert decide(decide(family, file), user) == decided
    assert decide(family) == decide(family, {}, {}) == family


@examples(RECIPES, st.dictionaries(st.text(max_size=8).filter(lambda k: k not in VALUES), st.integers()))
def test_what_is_no_setting_is_passed_over(family: Recipe, foreign: dict[str, Any]) -> None:
    assert decide(family, foreign, {"topology": "sdxl", "latent_std": 1.75, "seed": 3}) == family


@pytest.mark.parametrize("name", ["rule", "start", "spacing"])
def test_words_that_are_none_are_refused_whoever_says_them(name: str) -> None:
    with pytest.raises(PGPError, match=f"{name} is one of .*, not 'sideways'"):
        decide(Recipe(), {name: "sideways"})


@examples(RECIPES, st.integers(0, 2**32), st.floats(0, 1))
def test_options_are_the_recipe_s_and_the_run_s(recipe: Recipe, seed: int, strength: float) -> None:
    options = recipe.options(seed=seed, strength=strength, blend="gaussian", phase="canvas")
    assert (options.steps, options.cfg, options.start) == (recipe.steps, recipe.cfg, recipe.start)
    assert options.spacing == recipe.spacing
    # A share of the noise range belongs to a start from the picture's latent; any other goes through all of it.
    assert options.denoise == (recipe.denoise if recipe.start == "lq" else 1.0)
    assert (options.tiling.tile, options.tiling.overlap) == (recipe.tile, recipe.overlap)
    assert (options.tiling.blend, options.tiling.phase) == ("gaussian", "canvas")
    assert (options.seed, options.strength) == (seed, strength)


class Seen(Perfect):
    """Keeps the options that it is run with."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe, self.options = recipe, []  # type: ignore[misc]

    def restore(self, canvas: torch.Tensor, options: SampleOptions | None = None, *_: Any, **__: Any) -> torch.Tensor:
        self.options.append(options)
        return canvas.clone()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # A model that is meant for tiles of a size gets them, where nobody says.
        ([], (96, 16, 7, 2.5, "lr")),
        (["--tile=0"], (0, 16, 7, 2.5, "lr")),
        (["--tile=64", "--overlap=32"], (64, 32, 7, 2.5, "lr")),
        (["--steps=3", "--cfg=1", "--start=noise"], (96, 16, 3, 1.0, "noise")),
    ],
    ids=["nobody", "no tiles", "tiles", "run"],
)
def test_the_command_line_asks_it(
    arguments: list[str],
    expected: tuple[Any, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = Seen(Recipe(steps=7, cfg=2.5, start="lr", tile=96, overlap=16, color_fix="none"))
    monkeypatch.setattr(model_options, "load", lambda *_: seen)
    source = photo(tmp_path / "photo.png", 9, 13)
    assert main(["upscale", str(source), "-o", str(tmp_path / "out"), "--json", "--seed=5", *arguments]) == 0
    (options,) = seen.options
    assert options.tiling == replace(options.tiling, tile=expected[0], overlap=expected[1])
    assert (options.steps, options.cfg, options.start) == expected[2:]
    assert json.loads(capsys.readouterr().out)["steps"] == expected[2]
