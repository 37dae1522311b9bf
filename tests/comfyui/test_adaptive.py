"""PGP-DiffSR Difficulty and PGP-DiffSR Adaptive: in ComfyUI's Python, and over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import rounding

from pgp_core.restorers.nano import model as nano

from .comfy_server import RunFailed, Server
from .in_process import Checks, Driver

SECONDS = 300
#: Where tiles begin that are called throughout, and all.
BELOW, ALL = [[16, 0], [16, 8]], [[y, x] for y in (0, 8, 16) for x in (0, 8)]


@pytest.fixture(scope="module")
def checks(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    return driver.run(tmp_path_factory.mktemp("adaptive"), SECONDS, "adaptive")


def test_easy_tiles_are_called_for_the_last_steps_only(checks: Checks) -> None:
    result = checks["adaptive_calls"]
    # Flat above, hard below: of six tiles half are to be easy, but the two in the middle are equals.
    assert result["tiles"] == [BELOW, BELOW, ALL, ALL]
    assert result["calls"] == 16
    assert result["calls without"] == 24
    assert result["log"] == ["PGP-DiffSR Adaptive: the model was called for 16 of 24 tiles"]
    assert result["finite"]
    assert result["differs"] > 1e-4
    assert result["all hard is the tiled MODEL"]
    assert result["tiled MODEL untouched"]


def test_frames_that_are_sampled_one_by_one_have_their_own_groups(checks: Checks) -> None:
    assert checks["adaptive_frames"]["difference"] * nano.SCALE <= rounding.LATENT


def test_the_encoded_canvas_stands_for_tiles_that_wait(checks: Checks) -> None:
    result = checks["adaptive_coarse"]
    *waiting, last = result["differences"]
    assert len(waiting) == 3
    # Blended of equal tiles.
    assert max(waiting) <= 1e-5 * result["scale"]
    assert last > 1e-2


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("not tiled", "put PGP-DiffSR Tiling right before this node"),
        ("wrapped by another", "put PGP-DiffSR Tiling right before this node"),
        ("twice", "has groups already"),
        ("another mask", "48x32 does not have the proportions of the latent (24x32)"),
        ("three masks", "give one, or one per picture"),
        ("another latent", "connect the one that is sampled"),
        ("starts", "smaller share"),
    ],
)
def test_what_does_not_fit_is_refused(case: str, words: str, checks: Checks) -> None:
    message = checks["adaptive_refusals"].get(case, "")
    assert words in message
    assert "\n" not in message


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": f"PGPDiffSR{kind}", "inputs": inputs}


def _graph(model: str) -> dict[str, Any]:
    sampler = {"seed": 3, "steps": 3, "cfg": 1.0, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0}
    links = {"model": ["adaptive", 0], "positive": ["nano", 3], "negative": ["nano", 4], "latent_image": ["empty", 0]}
    shares = {"easy": 0.4, "hard": 0.3, "easy_start": 0.2, "medium_start": 0.4, "common": 1}
    return {
        "nano": _node("LoadNano"),
        "image": {
            "class_type": "EmptyImage",
            "inputs": {"width": 192, "height": 96, "batch_size": 1, "color": 8421504},
        },
        "difficulty": _node("Difficulty", image=["image", 0]),
        "encoded": {"class_type": "VAEEncode", "inputs": {"pixels": ["image", 0], "vae": ["nano", 2]}},
        "empty": {"class_type": "LatentMultiply", "inputs": {"samples": ["encoded", 0], "multiplier": 0.0}},
        "tiled": _node("Tiling", model=["nano", 0], tile=64, overlap=16, blend="cosine", phase="tile", frames=0),
        "adaptive": _node("Adaptive", model=[model, 0], difficulty=["difficulty", 0], samples=["encoded", 0], **shares),
        "sample": {"class_type": "KSampler", "inputs": {**sampler, **links}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["nano", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "adaptive"}},
    }


def test_a_flat_picture_over_http(server: Server) -> None:
    outputs = server.run(_graph("tiled"))["outputs"]
    assert outputs["save"]["images"]
    assert outputs["difficulty"]["images"]
    # Overlaps of 4 positions: 2 x 4 tiles, all easy, called in the last of three steps.
    assert "PGP-DiffSR Adaptive: the model was called for 8 of 24 tiles" in server.log_tail(10**5)


def test_a_model_without_tiles_is_refused_over_http(server: Server) -> None:
    with pytest.raises(RunFailed, match="put PGP-DiffSR Tiling right before this node"):
        server.run(_graph("nano"))
