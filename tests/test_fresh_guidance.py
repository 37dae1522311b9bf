"""``pgp-diffsr guidance``: fresh files for training, and what a file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faithdiff_file
import pytest
import torch

from pgp_core.cli import main
from pgp_core.files.checkpoints import sha256
from pgp_core.files.weights import open_weights
from pgp_core.guidance.file import read_guidance
from pgp_core.guidance.module import Guidance
from pgp_core.unet.plan import PRESET_DIR, load_plan, presets


def run(capsys: pytest.CaptureFixture[str], *args: Any) -> tuple[int, dict[str, Any], str]:
    status = main([*map(str, args), "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else {}, err


def guidance(path: Path) -> Guidance:
    with open_weights(path) as file:
        spec, tensors = read_guidance(file)
    return Guidance(spec, device="meta").load(tensors).eval()


def test_a_fresh_file_has_the_papers_peam_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, row, _ = run(capsys, "guidance", "init", "-o", tmp_path / "g.safetensors", "--plan", "pgp-sdxl")
    assert status == 0
    # One PEAM at 320 channels, and level 0 of full_adapter_xl.
    assert row["params"] == 1_107_264 + 4_261_440
    assert row["trained"] is False
    assert row["plan_sha256"] == sha256(PRESET_DIR / "pgp-sdxl.json")
    fresh = guidance(tmp_path / "g.safetensors")
    h, lq = torch.randn(1, 320, 4, 6), torch.rand(1, 3, 64, 96)
    assert torch.equal(fresh.fuse(0, h, fresh.features(lq)[0]), h)
    # Not dead: a step of the last convolution makes it work.
    torch.nn.init.normal_(fresh.peam["0"].convs[-1].weight, std=0.1)  # type: ignore[union-attr,index]
    assert float((fresh.fuse(0, h, fresh.features(lq)[0]) - h).detach().abs().max()) > 0.01


def test_the_seed_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run(capsys, "guidance", "init", "-o", tmp_path / f"{name}.safetensors", "--seed", seed)[0] == 0
    a, b, c = (sha256(tmp_path / f"{n}.safetensors") for n in "abc")
    assert a == b != c


def test_with_faithdiff_its_alignment_stays_beside_the_fresh_peam(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(faithdiff_file.state_dict(), tmp_path / "FaithDiff.bin")
    status, row, _ = run(
        capsys,
        *("guidance", "init", "-o", tmp_path / "g.safetensors"),
        *("--faithdiff", tmp_path / "FaithDiff.bin", "--model", tmp_path / "FaithDiff.bin"),
    )
    assert status == 0
    assert [(s["module"], s["fusion"], s["channels"]) for s in row["sites"]] == [
        ("conv_in", "alignment", 64),
        ("down_blocks.0.downsamplers.0", "peam", 64),
    ]
    ours, theirs = guidance(tmp_path / "g.safetensors"), guidance(tmp_path / "FaithDiff.bin")
    h, lq = torch.randn(1, 64, 8, 8), torch.rand(1, 3, 64, 64)
    f = ours.features(lq)
    assert torch.equal(ours.fuse(0, h, f[0]), theirs.fuse(0, h, theirs.features(lq)[0]))
    h = h[..., :4, :4]
    assert torch.equal(ours.fuse(1, h, f[1]), h)
    assert run(capsys, "guidance", "show", tmp_path / "FaithDiff.bin")[1]["parts"] == ["lq_encoder", "alignment"]


@pytest.mark.parametrize("name", presets())
def test_a_plan_s_hash_is_its_file_s(name: str) -> None:
    assert load_plan(name).sha256() == sha256(PRESET_DIR / f"{name}.json")


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.safetensors").write_text("x")
    torch.save({"conv_in.weight": torch.zeros(1)}, tmp_path / "plain.bin")
    for args, words in (
        (("init", "-o", tmp_path / "g.bin"), "ends in .safetensors"),
        (("init", "-o", tmp_path / "there.safetensors"), "is there already"),
        (("init", "-o", tmp_path / "g.safetensors", "--faithdiff", tmp_path / "plain.bin"), "FaithDiff"),
        (("init", "-o", tmp_path / "g.safetensors", "--model", tmp_path / "none.bin"), "there is no file"),
        (("show", tmp_path / "plain.bin"), "no PGP-DiffSR guidance"),
        (("show", tmp_path / "there.safetensors"), "damaged"),
    ):
        status, _, err = run(capsys, "guidance", *args)
        assert status == 1
        assert words in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "g.safetensors").exists()
