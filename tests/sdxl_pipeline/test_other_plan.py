"""Guidance that was trained with other blocks than the UNet runs is said when both are loaded."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from sdxl_scene import Everything, peam_file

from pgp_core.files.weights import open_weights
from pgp_core.guidance.spec import METADATA_KEY, GuidanceSpec
from pgp_core.restorers.sdxl.loading import Given
from pgp_core.restorers.sdxl.restorer import SDXLRestorer
from pgp_core.unet.plan import load_plan

PAPER = load_plan("pgp-sdxl")


def test_the_command_line_s_pipeline_says_it_once(tmp_path: Path, files: Everything) -> None:
    path = peam_file(tmp_path / "g.safetensors")
    with open_weights(path) as file:
        spec = GuidanceSpec.from_metadata(file.metadata).with_plan(PAPER)
    weights = {k: v.clone() for k, v in load_file(path).items()}
    save_file(weights, path, {METADATA_KEY: json.dumps(spec.to_json())})
    said: list[str] = []
    for plan, times in ((None, 1), (PAPER, 0)):
        said.clear()
        chosen = Given(model=files.faithdiff, base=files.sdxl, guidance=path, plan=plan, prompt="a house")
        SDXLRestorer.load(chosen, say=said.append)
        assert sum(line.startswith("g.safetensors: it was trained with plan pgp-sdxl,") for line in said) == times
