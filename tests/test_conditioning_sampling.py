"""Saved CONDITIONING for the command line: SDXL's sizes, and what cannot be sampled there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conditionings import draw, refusal, sdxl, small

from pgp_core.conditioning.entries import to_sampling


def test_sampling_takes_the_sizes_in_sdxl_s_order() -> None:
    entry = sdxl()
    prompt = to_sampling([entry], (64, 96))
    # As comfy.model_base.SDXL.encode_adm embeds them: height, width, crop_h, crop_w, target_height, target_width.
    assert prompt.time_ids.tolist() == [[768.0, 1024.0, 16.0, 8.0, 1536.0, 2048.0]]
    assert prompt.context is entry[0]
    assert prompt.pooled is entry[1]["pooled_output"]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({}, (64.0, 96.0, 0.0, 0.0, 64.0, 96.0)),
        ({"width": 512, "height": 256}, (256.0, 512.0, 0.0, 0.0, 256.0, 512.0)),
        ({"target_width": 512, "target_height": 256}, (64.0, 96.0, 0.0, 0.0, 256.0, 512.0)),
        ({"crop_h": 3}, (64.0, 96.0, 3.0, 0.0, 64.0, 96.0)),
    ],
)
def test_sizes_that_the_file_lacks_are_the_canvas_s(options: dict[str, Any], ids: tuple[float, ...]) -> None:
    assert to_sampling([small(**options)], (64, 96)).time_ids.tolist() == [list(ids)]


def test_options_that_sdxl_ignores_are_ignored() -> None:
    mask = torch.ones(1, 5)
    entry = small(start_percent=0.0, end_percent=1, strength=0.5, guidance=3.5, aesthetic_score=6, attention_mask=mask)
    assert to_sampling([entry], (8, 8)).time_ids.tolist() == [[8.0, 8.0, 0.0, 0.0, 8.0, 8.0]]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], ["0 entries"]),
        ([small(), small()], ["2 entries", "combined"]),
        ([sdxl(batch=2)], ["2 pictures"]),
        ([[draw(1, 5, 8), {}]], ["pooled"]),
        ([[draw(1, 5, 8), {"pooled_output": None}]], ["pooled"]),
        ([small(start_percent=0.2)], ["part of the sampling"]),
        ([small(end_percent=0.9)], ["part of the sampling"]),
        ([small(strength=0)], ["part of the sampling"]),
        ([small(concat_latent_image=torch.ones(1, 4, 8, 8))], ["concat_latent_image"]),
        ([small(mask=torch.ones(1, 8, 8))], ["mask"]),
    ],
)
def test_what_the_command_line_cannot_do(entries: Any, words: list[str]) -> None:
    refusal(lambda: to_sampling(entries, (64, 64), "neg.safetensors"), "neg.safetensors", *words)


def test_a_canvas_without_pixels() -> None:
    refusal(lambda: to_sampling([small()], (0, 64)), "64 x 0")
