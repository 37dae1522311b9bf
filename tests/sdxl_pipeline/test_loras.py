"""LoRA, one step, and the dial of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rounding
import torch
from safetensors.torch import load_file
from sdxl_scene import Everything, picture

from pgp_core.errors import PGPError
from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.restorer import SDXLRestorer
from pgp_core.sampling.one_step import Dial
from pgp_core.unet import lora
from pgp_core.unet.plan import load_plan


def test_a_lora_says_its_timestep(files: Everything, s1: dict[str, Path]) -> None:
    """One whose metadata says none works at 1."""
    rest: Any = {"model": files.faithdiff, "base": files.sdxl, "conditioning": files.positive}
    for kind, timestep in (("s1", 17), ("ldm", 1)):
        made = SDXLRestorer.load(Given(loras=(s1[kind],), one_step=True, **rest), say=str)
        assert made.recipe.timestep == timestep


def test_the_dial_of_two_loras(files: Everything, s1: dict[str, Path], semantic: Path) -> None:
    rest: Any = {"model": files.faithdiff, "base": files.sdxl, "conditioning": files.positive}

    def load(dial: Dial | None) -> SDXLRestorer:
        second: Any = {} if dial is None else {"semantic_lora": semantic, **vars(dial)}
        return SDXLRestorer.load(Given(loras=(s1["s1"],), one_step=True, **second, **rest), say=str)

    def latent(pipeline: SDXLRestorer, dial: Dial | None = None) -> torch.Tensor:
        pipeline.dial = dial or pipeline.dial
        found: list[torch.Tensor] = []
        pipeline.vae.decode = lambda z: found.append(z) or torch.zeros(1, 3, 64, 64)  # type: ignore
        pipeline.restore(picture())
        return found[0]

    alone, merged, beside = load(None), load(Dial()), load(Dial(1, 0.5))
    one = latent(alone)
    lora.merge(alone.unet, load_file(semantic))
    both = latent(alone)
    assert float((both - one).abs().max()) > 1e-2
    assert torch.equal(latent(merged), both), "one merged pass"
    assert torch.equal(latent(beside, Dial(1, 0)), one), "the pixel LoRA alone"
    rounding.assert_same(latent(beside, Dial(1, 1)), both, rounding.NETWORK)
    z_l = latent(beside, Dial(0, 0))
    for pixel, strength in ((1.0, 0.5), (0.7, 1.3), (0.0, 1.0)):
        # Predictions are z_l minus the results.
        expected = z_l - pixel * (z_l - one) - strength * (one - both)
        # Of two predictions, with factors of up to 1.3.
        rounding.assert_same(latent(beside, Dial(pixel, strength)), expected, 2 * rounding.NETWORK, one, both)


def test_the_semantic_lora_is_for_one_step(files: Everything, semantic: Path) -> None:
    chosen = Given(model=files.faithdiff, base=files.sdxl, semantic_lora=semantic)
    with pytest.raises(PGPError, match="--one-step"):
        SDXLRestorer.load(chosen, say=str)


def test_loras_of_every_spelling_are_the_same(files: Everything, s1: dict[str, Path]) -> None:
    rest: Any = {"model": files.faithdiff, "base": files.sdxl, **files.saved}
    ldm, peft = (
        SDXLRestorer.load(Given(loras=(s1[kind],), **rest), say=str).unet.state_dict() for kind in ("ldm", "peft")
    )
    assert all(torch.equal(ldm[k], peft[k]) for k in ldm)
    assert sum(not torch.equal(ldm[k], files.unet[k]) for k in ldm) == 3
    said: list[str] = []
    both = Given(loras=(s1["ldm"], s1["peft"]), plan=load_plan("pgp-sdxl"), **rest)
    pruned = SDXLRestorer.load(both, say=said.append).unet.state_dict()
    assert sum("1 of its 3 layers" in line for line in said) == 2
    assert torch.allclose(
        pruned["conv_in.weight"] - files.unet["conv_in.weight"],
        2 * (ldm["conv_in.weight"] - files.unet["conv_in.weight"]),
        atol=1e-6,
    )
