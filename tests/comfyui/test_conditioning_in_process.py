"""CONDITIONING in files, in ComfyUI's Python; see ``checks/conditioning.py``."""

from __future__ import annotations

import pytest
import torch

from pgp_core.conditioning import entries as conditioning

from .in_process import Checks


def test_conditioning_files_are_found_where_they_are_saved(checks: Checks) -> None:
    result = checks["conditioning_folders"]
    assert result["folders"] == ["models/conditioning", "output/conditioning"]
    assert result["extensions"] == [".safetensors"]
    assert result["before"] == result["empty"] == []
    assert result["after"] == ["a.safetensors", "saved_00001_.safetensors", "sub/B.SAFETENSORS"]


def test_conditioning_folders_that_others_made_stay_theirs(checks: Checks) -> None:
    result = checks["conditioning_folders_of_others"]
    assert result["yaml"] == [3, "/elsewhere", []]
    assert result["pack"] == [3, "/elsewhere", [".pt", ".safetensors"]]
    assert result["list"] == [3, "/elsewhere", [".bin", ".safetensors"]]


@pytest.mark.parametrize("kind", ["plain", "combined", "averaged", "zero", "range", "strength"])
def test_what_core_makes_of_a_prompt_comes_back_bit_for_bit(kind: str, checks: Checks) -> None:
    assert checks["conditioning_made_by_core"][kind] is True


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("area", "area"),
        ("percent area", "area"),
        ("mask", "mask"),
        ("control", "control"),
        ("hooks", "hooks"),
        ("unclip", "unclip_conditioning"),
    ],
)
def test_what_belongs_to_one_graph_is_not_saved(kind: str, word: str, checks: Checks) -> None:
    _refused_with(checks["conditioning_made_by_core"][kind], "ConditioningError", word)


def test_a_loaded_conditioning_samples_the_same_bits(checks: Checks) -> None:
    result = checks["conditioning_samples_the_same"]
    assert result["equal"]
    assert result["matters"] > 1e-3


@pytest.mark.parametrize("kind", ["all", "no target"])
def test_the_command_line_gives_sdxl_the_sizes_that_core_does(kind: str, checks: Checks) -> None:
    """Pooled vector and sizes as diffusers' SDXL embeds them, from the file; against core's ``encode_adm``."""
    from diffusers.models.embeddings import get_timestep_embedding

    checks["conditioning_for_the_command_line"]
    core = checks.tensors("conditioning_for_the_command_line")[kind]
    saved = conditioning.load(checks.folder / f"conditioning {kind}.safetensors")
    prompt = conditioning.to_sampling(saved.entries, (64, 64))
    ids = get_timestep_embedding(prompt.time_ids[0], 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    ours = torch.cat([prompt.pooled, ids.reshape(1, -1)], 1)
    assert ours.shape == core.shape
    # Sines of up to 1100 radians in float32.
    assert float((ours - core).abs().max()) <= 5e-4


def test_a_prompt_is_written_unless_comfyui_writes_no_metadata(checks: Checks) -> None:
    assert checks["conditioning_metadata"] == {"as asked": "a prompt, ü", "--disable-metadata": ""}


def test_conditioning_is_neither_saved_nor_loaded_outside_its_folders(checks: Checks) -> None:
    result = checks["conditioning_names_and_paths"]
    for found in (*result["prefixes"], result["folder is a file"]):
        _refused_with(found, "ConditioningError", "output folder")
    _refused_with(result["refused"], "ConditioningError", "hooks")
    for found in result["names"]:
        _refused_with(found, "ConditioningError", "no conditioning file")
    assert result["left behind"] == []


def test_conditioning_files_are_numbered_and_read_again_when_they_change(checks: Checks) -> None:
    result = checks["conditioning_names_and_paths"]
    assert result["numbered"] == ["conditioning/c_00001_.safetensors", "conditioning/c_00002_.safetensors"]
    assert result["fingerprint of none"] == ""
    assert result["of the same size"]
    assert result["fingerprint again"]
    assert result["fingerprint of another"]
    (shown,) = result["shown"]
    assert shown.startswith("elsewhere/c_00001_.safetensors")
    assert "not" in shown


def _refused_with(found: list[str], error: str, word: str) -> None:
    assert found, "it was taken"
    name, message = found
    assert name == error, message
    assert "\n" not in message
    assert word in message
