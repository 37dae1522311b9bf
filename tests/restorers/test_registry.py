"""The records of all families: what they say of themselves fits together, and reads without PyTorch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from itertools import chain, combinations
from pathlib import Path

import pytest

from pgp_core.choices import COLOR_FIXES
from pgp_core.errors import PGPError, WrongUsage
from pgp_core.guidance.spec import GuidanceSpec
from pgp_core.images.frames import Frame
from pgp_core.restorers.family import Family, Found
from pgp_core.restorers.finding import CANVASES, FAMILIES, bundled, family_named, family_of_unet, find
from pgp_core.restorers.given import Given
from pgp_core.restorers.recipe import Recipe
from pgp_core.unet.known import TOPOLOGIES

GIVEN = {f.name for f in fields(Given)}
EVERY = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)


def recipes(family: Family) -> list[Recipe]:
    return [r for r in (family.steps, family.once) if r is not None]


def test_names_are_one_each() -> None:
    assert len({f.name for f in FAMILIES}) == len({f.title for f in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family_named(family.name) is family
    with pytest.raises(PGPError, match=r"no family 'unheard-of'; known are .*sdxl"):
        family_named("unheard-of")


def test_one_comes_with_the_package_and_is_what_nothing_asks_for() -> None:
    assert [f for f in FAMILIES if f.bundled] == [bundled()]
    assert find(Given()).family is bundled()


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("parts", list(chain.from_iterable(combinations(GuidanceSpec.PARTS, n) for n in range(5))))
def test_every_unet_with_any_guidance_is_of_a_family(topology: str, parts: tuple[str, ...]) -> None:
    family = family_of_unet(topology, frozenset(parts))
    assert topology in family.topologies and family.guided(frozenset(parts))


def test_of_a_unet_that_is_unknown_no_family_is_made() -> None:
    with pytest.raises(PGPError, match="no family here is made of a UNet of sd3"):
        family_of_unet("sd3")


@EVERY
def test_what_it_says_of_itself_is_whole(family: Family) -> None:
    assert all((family.name, family.title, family.files, family.licence, family.published))
    # None where plans have no say, as its network is none of a UNet's kind.
    assert set(family.topologies) <= set(TOPOLOGIES)
    assert family.takes <= GIVEN
    assert not any("\n" in line for line in (family.files, *family.wants, family.licence, family.published))
    assert family.frame.multiple % family.factor == 0 and family.frame.multiple > 0
    assert family.frame.border >= 0 and family.frame.enlarges >= 1
    assert family.canvas in CANVASES or family.frame.enlarges != 1


@EVERY
def test_its_recipes_can_be_run(family: Family) -> None:
    assert recipes(family)
    for recipe in recipes(family):
        assert recipe.color_fix in COLOR_FIXES
        options = recipe.options(seed=3)
        assert options.steps == recipe.steps
        assert (recipe.timestep is not None) == recipe.one_step
        assert recipe.steps == 1 or not recipe.one_step
    assert family.recipe() == family.recipe(family.prefers_one_step)
    assert family.recipe(None, {"cfg": 3.5}, {"cfg": None}).cfg == 3.5


def test_canvases_of_one_name_are_one() -> None:
    for family in FAMILIES:
        if family.frame.enlarges == 1:
            assert CANVASES[family.canvas] == family.frame
    assert set(CANVASES) <= {f.canvas for f in FAMILIES}


def test_a_frame_is_of_the_result_s_size_where_nothing_is_said() -> None:
    assert Frame(16) == Frame(multiple=16, border=0, enlarges=1)


@EVERY
def test_what_means_nothing_to_it_is_named(family: Family) -> None:
    other = {
        "base": Path("b"), "guidance": Path("g"), "vae": Path("v"), "loras": (Path("l"),), "prompt": "p",
        "dtype": "float16", "conditioning": Path("c"), "semantic": 0.5, "natural": 0.5,
    }  # fmt: skip
    for name, value in other.items():
        given = Given(model=Path("m"), cfg=2.0, one_step=True, **{name: value})
        assert given.named == {"model", "cfg", "one_step", name}
        assert family.foreign(given) == (None if name in family.takes else name)


def test_what_is_not_given_is_not_named() -> None:
    assert Given().named == frozenset() and list(Given().files()) == []
    # False is an answer: not in one step.
    assert Given(one_step=False, pixel=0.0).named == {"one_step", "pixel"}
    given = Given(model=Path("m"), loras=(Path("a"), Path("b")), conditioning=Path("c"))
    assert {str(path) for path in given.files()} == {"m", "a", "b", "c"}
    with pytest.raises(PGPError, match="there is no m: nothing is downloaded"):
        given.check_files()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Given(prompt="a", conditioning=Path("c")), "--prompt and --conditioning"),
        (Given(negative_prompt="a", negative_conditioning=Path("c")), "--negative-prompt and --negative-conditioning"),
        (Given(semantic_lora=Path("s"), loras=(Path("l"),), one_step=False), "--semantic-lora is for --one-step"),
        (Given(pixel=0.5), "--pixel and --semantic"),
        (Given(one_step=True, semantic=0.5), "--pixel and --semantic"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage_in_every_family(given: Given, said: str) -> None:
    assert said in (given.contradiction() or "")
    for family in FAMILIES:
        whole = replace(given, loras=given.loras or (Path("l"),))
        with pytest.raises(WrongUsage, match="--"):
            Found(family, whole, "").load()


def test_what_goes_together_is_no_contradiction() -> None:
    assert Given().contradiction() is None
    assert Given(prompt="a", negative_conditioning=Path("c")).contradiction() is None
    assert Given(one_step=True, loras=(Path("l"),), semantic_lora=Path("s"), pixel=0.5).contradiction() is None


#: In a fresh Python: all that the records say, then what is loaded.
READ = """
import sys
from pgp_core.restorers.finding import FAMILIES, CANVASES, family_of_unet
from pgp_core.restorers.given import Given
for family in FAMILIES:
    vars(family), family.recipe(), family.recipe(True), family.wrong(Given())
    family.foreign(Given(prompt="a"))
    for topology in family.topologies:
        family_of_unet(topology)
print(sorted(n for n in ("torch", "numpy", "safetensors", "diffusers", "PIL") if n in sys.modules))
"""


def test_records_read_without_pytorch() -> None:
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
