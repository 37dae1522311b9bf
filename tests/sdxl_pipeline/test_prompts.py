"""Prompts and saved conditioning."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import found_files
import sdxl_files
import torch
from rounding import NETWORK, assert_same, difference
from safetensors.torch import load_file, save_file
from sdxl_scene import SHORT, Everything, exact, picture

from pgp_core.conditioning import entries as conditioning
from pgp_core.conditioning import prompts
from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.restorer import SDXLRestorer


def test_prompts_are_sdxls(files: Everything) -> None:
    """Last hidden states but one of both encoders side by side, the pooled vector from the second."""
    one, two = sdxl_files.text_encoders()
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789,.!"]
    ids = {c: i for i, c in enumerate([*letters, *(f"{c}</w>" for c in letters)])}
    words = [ids["a</w>"], ids["r"], ids["e"], ids["d</w>"]]
    for text, body in (("a red", words), ("", [])):
        rows = [[78, *body, 79] + [pad] * (10 - len(body)) for pad in (79, ids["!"])]
        with torch.no_grad():
            a, b = (m(torch.tensor([r]), output_hidden_states=True) for m, r in zip((one, two), rows, strict=True))
        ((context, options),) = prompts.encode(files.sdxl, [text])[0]
        assert context.shape == (1, 12, 32)
        assert torch.allclose(context, torch.cat((a.hidden_states[2], b.hidden_states[2]), -1), atol=1e-6)
        assert torch.allclose(options["pooled_output"], b.text_embeds, atol=1e-6)
        # Encoded, not zeros.
        assert float(context.abs().mean()) > 0.1


def test_a_prompt_that_is_too_long_is_cut_and_that_is_said(files: Everything) -> None:
    said: list[str] = []
    long, cut, _ = prompts.encode(files.sdxl, ["abcdefghijklm", "abcdefghij", "a"], say=said.append)
    assert said == ["the prompt has 15 tokens, the text encoders take 12: its end is left out"]
    # Ten letters, start and end; the tenth letter of the long one ends no word.
    assert torch.allclose(long[0][0][:, :10], cut[0][0][:, :10], atol=1e-6)


def test_saved_conditioning_is_the_prompt(files: Everything, pipeline: SDXLRestorer) -> None:
    saved = SDXLRestorer.load(Given(model=files.faithdiff, base=files.checkpoint, **files.saved), say=str)
    expected = pipeline.restore(picture(), SHORT)
    assert torch.equal(saved.restore(picture(), SHORT), expected)
    other = SDXLRestorer.load(Given(model=files.faithdiff, base=files.sdxl, prompt="a blue house"), say=str)
    assert not torch.equal(other.restore(picture(), SHORT), expected)


def test_prompts_of_other_lengths_meet(files: Everything, tmp_path: Path) -> None:
    """A prompt said twice over is the same to attention."""
    ((context, options),) = conditioning.load(files.positive).entries
    conditioning.save(tmp_path / "twice.safetensors", [[context.repeat(1, 2, 1), options]])
    rest: Any = {"model": files.faithdiff, "base": files.checkpoint, "negative_conditioning": files.negative}
    _, expected, allowed = exact(files, picture(), 2, 5.0, 3, "epsilon", "lr")
    for path in (files.positive, tmp_path / "twice.safetensors"):
        pipeline = SDXLRestorer.load(Given(conditioning=path, **rest), say=str)
        assert difference(pipeline.restore(picture(), SHORT), expected) <= allowed


def test_text_encoders_under_prefixes_in_other_files_are_the_same(files: Everything, tmp_path: Path) -> None:
    """As trainers leave them: wrapped, in shards, and a configuration with a byte order mark."""
    shutil.copytree(files.sdxl, tmp_path / "sdxl")
    one, two = (tmp_path / "sdxl" / name for name in ("text_encoder", "text_encoder_2"))
    weights = load_file(one / "model.safetensors")
    save_file({f"module._orig_mod.{k}": v for k, v in weights.items()}, one / "model.safetensors")
    found_files.write_shards(two, "model", load_file(two / "model.safetensors"), 2)
    (two / "model.safetensors").unlink()
    (two / "config.json").write_bytes(b"\xef\xbb\xbf" + (two / "config.json").read_bytes())
    ((expected, options),) = prompts.encode(files.sdxl, ["a red house"])[0]
    ((found, others),) = prompts.encode(tmp_path / "sdxl", ["a red house"])[0]
    # The weights lie at other addresses, so products may be summed in another order.
    assert_same(found, expected, NETWORK)
    assert_same(others["pooled_output"], options["pooled_output"], NETWORK)
